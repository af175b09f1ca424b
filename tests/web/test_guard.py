"""Who gets in."""

from __future__ import annotations

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from semamba.errors import SemambaError
from semamba.web.guard import Guard
from semamba.web.settings import Settings
from tests.web.serving import Running, encode, noisy, running

TOKEN = "correct horse"


async def nothing(*_: object) -> None: ...


def refusal(settings: Settings, method: str = "GET", path: str = "/", kind: str = "http", **headers: str) -> int | None:
    answer = Guard(nothing, settings).refusal(kind, method, path, {"host": "127.0.0.1:8000", **headers})
    return answer[0] if answer else None


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "192.168.1.7", ""])
def test_addresses_and_localhost_are_known(host: str) -> None:
    assert refusal(Settings(), host=host) == (None if host else 403)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "a@[::1"])
def test_a_foreign_name_for_this_machine_is_refused(host: str) -> None:
    assert refusal(Settings(), host=host) == 403


def test_a_name_can_be_agreed_on() -> None:
    assert refusal(Settings(names=("Voice.Example",)), host="voice.example:80") is None


@pytest.mark.parametrize(
    ("method", "kind", "origin", "allowed"),
    [
        ("POST", "http", "http://127.0.0.1:8000", True),
        ("POST", "http", "http://127.0.0.1:9000", False),
        ("POST", "http", "https://evil.example", False),
        ("POST", "http", "null", False),
        ("GET", "websocket", "https://evil.example", False),
        ("GET", "websocket", "http://127.0.0.1:8000", True),
        ("GET", "http", "https://evil.example", True),  # without CORS headers its page cannot read the answer
    ],
)
def test_pages_of_other_sites_can_neither_post_nor_open_sockets(
    method: str, kind: str, origin: str, allowed: bool
) -> None:
    assert (refusal(Settings(), method, "/v1/enhance", kind, origin=origin) is None) == allowed


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401),
        (f"Bearer {TOKEN}", None),
        (f"bearer  {TOKEN} ", None),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer ümlaut", 401),
    ],
)
def test_the_token(header: str, status: int | None) -> None:
    given = {"authorization": header} if header else {}
    assert refusal(Settings(token=TOKEN), path="/v1/models", **given) == status


def test_a_short_token_is_refused() -> None:
    with pytest.raises(SemambaError, match="8"):
        Settings(token="short")


@pytest.fixture(scope="module")
def locked() -> Running:
    with running(Settings(token=TOKEN)) as it:
        yield it  # type: ignore[misc]


def test_behind_the_token_lies_everything_but_the_page(locked: Running) -> None:
    for path in ("/", "/docs", "/static/app.js", "/healthz", "/openapi.json"):
        assert httpx.get(locked.url + path).status_code == 200, path
    for path in ("/v1/models", "/models/causal-small/config.json"):
        answer = httpx.get(locked.url + path)
        assert answer.status_code == 401 and "token" in answer.json()["error"]
        assert answer.headers["www-authenticate"] == "Bearer"
        assert httpx.get(locked.url + path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    answer = httpx.post(locked.url + "/v1/enhance", files={"file": ("a.wav", encode(noisy(0.1)))})
    assert answer.status_code == 401


def test_a_socket_takes_the_token_in_its_hello(locked: Running) -> None:
    for hello, reply in (('{"rate": 16000}', "token"), (f'{{"rate": 16000, "token": "{TOKEN}"}}', "ready")):
        with connect(locked.socket) as socket:
            socket.send(hello)
            assert reply in socket.recv(timeout=20)
    with pytest.raises(InvalidStatus), connect(locked.socket, additional_headers={"Authorization": "Bearer wrong"}):
        pass


def test_sockets_of_other_pages_are_closed(server: Running) -> None:
    with pytest.raises(InvalidStatus) as caught, connect(server.socket, origin="https://evil.example"):  # type: ignore[arg-type]
        pass
    assert caught.value.response.status_code == 403


def test_answers_tell_the_browser_to_be_careful(client: httpx.Client) -> None:
    for path in ("/", "/healthz", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
