"""Who may ask: a layer around the application that answers before anything is read.

A page on another site can make a browser send requests to this machine. Three checks stop that: the Host must be an
address or a name that was agreed on (a foreign name that was pointed here is refused: DNS rebinding), a browser's
Origin must be that same host (no forms or sockets from other sites), and with a token nothing is given without it.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from semamba.web.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PRIVATE = ("/v1/", "/models/")  # behind the token; the page itself must load to ask for it
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; worker-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self)",
}


class Guard:
    """ASGI layer; sockets without a token in their headers may still give it in their first message."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        names = ("localhost", socket.gethostname(), settings.host, *settings.names)
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self.refusal(scope["type"], scope.get("method", "GET"), scope["path"], headers)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1][:100]})
        else:
            await _answer(_with_headers(send), *refusal)

    def refusal(self, kind: str, method: str, path: str, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        """(status, reason), or None when the request may pass. `headers` has lower-case names."""
        host = headers.get("host", "")
        if not self._known(host):
            return 403, f"this server does not go by the name '{_name(host)}'; see semamba serve --name"
        origin = headers.get("origin")
        if (kind == "websocket" or method not in SAFE_METHODS) and origin is not None:
            site = origin.partition("://")[2]
            if site.lower() != host.lower():
                return 403, "requests from pages of other sites are refused"
        if self._settings.token is not None and path.startswith(PRIVATE):
            given = headers.get("authorization")
            if given is None and kind == "websocket":
                return None
            scheme, _, token = (given or "").partition(" ")
            if scheme.lower() != "bearer" or not same_token(token.strip(), self._settings.token):
                return 401, "this server needs a token: send the header 'Authorization: Bearer TOKEN'"
        return None

    def _known(self, host: str) -> bool:
        name = _name(host)
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self._names
        return True


def same_token(given: str, expected: str) -> bool:
    """In a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _name(host: str) -> str:
    """Without the port; IPv6 addresses keep their brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _with_headers(send: Send) -> Send:
    extra = [(name.encode(), text.encode()) for name, text in HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
