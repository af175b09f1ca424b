"""The HTTP application and the process that serves it. The only file that imports `fastapi` and `uvicorn`.

All sound is worked on in threads (the kernels release Python's lock), files and live streams in pools of their own, so
that neither the event loop nor a live stream waits for a long file.
"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

from semamba import __version__
from semamba.inference.files import CancelledError
from semamba.web import openapi
from semamba.web.catalogue import Catalogue
from semamba.web.gate import Gate
from semamba.web.guard import Guard
from semamba.web.live import LiveDesk
from semamba.web.produce import Production, parse_order
from semamba.web.settings import MAX_MESSAGE, STATIC, WAITING, ProblemError, Settings
from semamba.web.upload import receive_upload

T = TypeVar("T")

GRACE_SECONDS = 300  # that running work may take after the signal to stop
SEND_SECONDS = 30  # that a client may take to accept what the buffers of the connection do not hold
CLOSED_REQUEST = 499  # nobody reads it: the client has left

# Windows may have told Python something else about these, and browsers insist on the right type of a module.
for _suffix, _type in ((".js", "text/javascript"), (".css", "text/css"), (".svg", "image/svg+xml")):
    mimetypes.add_type(_type, _suffix)


class Workshop:
    """What the requests of one application share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings.model)
        self.gate = Gate(settings.workers, WAITING)
        self.pool = ThreadPoolExecutor(settings.workers, "file", initializer=_stand_back)
        self.live = LiveDesk(self.catalogue, settings)
        self.folder = Path()  # for uploads, while the application runs

    @contextlib.asynccontextmanager
    async def open(self, _: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="semamba-serve-", ignore_cleanup_errors=True) as folder:
            self.folder = Path(folder)
            yield
            await asyncio.to_thread(self.pool.shutdown, cancel_futures=True)
            await asyncio.to_thread(self.live.close)

    async def work(self, call: Callable[[], T], cancel: Callable[[], None] = lambda: None) -> T:
        """`call()` in the pool for files; when the request ends early the thread is told, and waited for."""
        future = asyncio.get_running_loop().run_in_executor(self.pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancel()
            await asyncio.wait([future])
            raise


class Sending(Response):
    """Sends pieces as they are made; whatever happens, `stack` is unwound: files removed, the turn given back."""

    def __init__(self, first: bytes, rest: Callable[[], Awaitable[bytes]], headers: dict[str, str], stack: Any) -> None:
        self.status_code, self.background = 200, None
        self._first, self._rest, self._stack = first, rest, stack
        self.init_headers(headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def pass_on(message: dict[str, Any]) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        async with self._stack:
            with contextlib.suppress(TimeoutError, CancelledError):  # nobody reads; the connection is broken off
                await pass_on({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                piece = self._first
                while piece:
                    await pass_on({"type": "http.response.body", "body": piece, "more_body": True})
                    piece = await self._rest()
                await pass_on({"type": "http.response.body", "body": b""})


def create_app(settings: Settings) -> FastAPI:
    """The application. Raises SemambaError when there is no model to serve."""
    shop = Workshop(settings)
    app = FastAPI(
        title="semamba",
        version=__version__,
        description=openapi.DESCRIPTION,
        docs_url=None,  # theirs loads scripts from other hosts
        redoc_url=None,
        lifespan=shop.open,
    )
    app.state.shop = shop
    app.add_middleware(Guard, settings=settings)
    _answer_problems(app)
    _add_files(app, shop)
    _add_models(app, shop)

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await shop.live.serve(_SocketLine(socket))

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html", headers={"cache-control": "no-cache"})

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", _Pages(directory=STATIC))
    return app


def _answer_problems(app: FastAPI) -> None:
    """Every error is JSON with one line."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> JSONResponse:
        # An upload that was not read to its end must not be taken for the next request.
        headers = {**error.headers, **({"connection": "close"} if error.status in (400, 408, 413, 415, 429) else {})}
        return JSONResponse({"error": error.message}, error.status, headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLOSED_REQUEST)

    @app.exception_handler(404)
    @app.exception_handler(405)
    @app.exception_handler(HTTPException)
    async def refusal(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)


def _add_files(app: FastAPI, shop: Workshop) -> None:
    @app.post("/v1/enhance", response_class=Response, **openapi.ENHANCE)
    async def enhance(request: Request) -> Response:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(shop.gate.admitted())
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(dir=shop.folder, prefix="upload-", ignore_cleanup_errors=True)
            )
            upload = await receive_upload(request.headers, request.stream(), Path(folder), shop.settings.max_bytes)
            order = parse_order(upload.fields)
            shop.catalogue.check(order.model)
            turn = await stack.enter_async_context(contextlib.AsyncExitStack())
            await turn.enter_async_context(shop.gate.slot())
            enhancer = await shop.work(lambda: shop.catalogue.get(order.model))
            production = Production(enhancer, upload, order, shop.settings)
            watch = asyncio.create_task(_cancel_when_gone(request, production))
            stack.callback(watch.cancel)
            pieces = production.pieces()

            async def next_piece() -> bytes:
                return await shop.work(lambda: next(pieces, b""), production.cancel)

            stack.push_async_callback(lambda: shop.work(lambda: _close(pieces)))
            try:
                first = await next_piece()
            except CancelledError:
                return Response(status_code=CLOSED_REQUEST)
            if not order.stream:
                await turn.aclose()  # the work is done; the next may begin while this client reads
            headers = dict(production.headers)
            if production.warnings:
                headers["x-warning"] = " | ".join(production.warnings).encode("ascii", "replace").decode()[:500]
            return Sending(first, next_piece, headers, stack.pop_all())


def _add_models(app: FastAPI, shop: Workshop) -> None:
    @app.get("/v1/models", **openapi.MODELS)
    async def models() -> list[dict[str, Any]]:
        return await asyncio.to_thread(lambda: shop.catalogue.rows)

    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> dict[str, Any]:
        return {
            "status": "ok",
            "version": __version__,
            "files": shop.gate.inside,
            "streams": shop.live.count,
            "max_megabytes": shop.settings.max_megabytes,
            "max_seconds": shop.settings.max_seconds,
            "token": shop.settings.token is not None,
        }

    @app.get("/models/{name}/{file}", response_class=FileResponse, **openapi.WEIGHTS)
    async def weights(name: str, file: str) -> FileResponse:
        path = shop.catalogue.file(name, file)
        kind = "application/json" if path.suffix == ".json" else "application/octet-stream"
        return FileResponse(path, media_type=kind, headers={"cache-control": "no-cache"})


async def _cancel_when_gone(request: Request, production: Production) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    production.cancel()


def _close(pieces: Iterator[bytes]) -> None:
    pieces.close()  # type: ignore[attr-defined]


class _Pages(StaticFiles):
    """The page; browsers ask each time whether a file is still the same, so that an upgrade is seen at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


class _SocketLine:
    """A WebSocket as `live.Line`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.authorised = "authorization" in socket.headers  # the guard let it pass

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        return text if text is not None else message.get("bytes", b"")

    async def send_json(self, content: dict[str, Any]) -> None:
        await self._socket.send_json(content)

    async def send_bytes(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code, reason[:100])


def _stand_back() -> None:
    """Threads for files yield to those of live streams. Only Linux has this for single threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.nice(5)


def run(settings: Settings, started: Callable[[str], None]) -> None:
    """Serve until a signal comes; then take nothing new and finish what runs. `started` gets the address."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        server_header=False,
        ws_max_size=MAX_MESSAGE,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    server.started_at = started
    server.run()


class _Server(uvicorn.Server):
    started_at: Callable[[str], None]

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            address, port = self.servers[0].sockets[0].getsockname()[:2]
            self.started_at(f"http://{f'[{address}]' if ':' in address else address}:{port}")
