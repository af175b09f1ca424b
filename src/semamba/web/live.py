"""Live streams: a hello in JSON, then blocks in and as many samples out, a fixed time later.

All that is waiting goes through the model at once: a server that falls behind takes larger blocks, which cost less for
each sample, and so catches up.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from semamba.errors import SemambaError
from semamba.web.catalogue import Catalogue
from semamba.web.guard import same_token
from semamba.web.produce import from_bytes, make_options, to_bytes
from semamba.web.settings import (
    HELLO_SECONDS,
    IDLE_SECONDS,
    MAX_CHANNELS,
    MAX_RATE,
    STREAMS,
    ProblemError,
    Settings,
)

if TYPE_CHECKING:
    from semamba.inference.engine import Options
    from semamba.inference.stream import Streamer

T = TypeVar("T")

_WAITING = 32  # messages read ahead; then the sender has to wait
_MAX_BATCH = 1 << 21  # bytes that go through the model at once
_MIN_RATE = 8000  # Hz
# Close codes of RFC 6455.
_GOING_AWAY, _BAD_DATA, _POLICY, _TRY_LATER = 1001, 1007, 1008, 1013


class Line(Protocol):
    """A WebSocket that is open. `authorised`: its headers already brought the token."""

    authorised: bool

    async def receive(self) -> str | bytes | None:
        """None when the other side has gone."""
        ...

    async def send_json(self, content: dict[str, Any]) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Hello:
    """The first message of a client."""

    rate: int  # Hz
    channels: int
    narrow: bool  # PCM of 16 bits instead of floats
    model: str | None
    options: Options

    @property
    def frame_bytes(self) -> int:
        return self.channels * (2 if self.narrow else 4)


@dataclass
class _Tally:
    taken: int = 0  # samples of each channel
    given: int = 0
    queue: asyncio.Queue[str | bytes | None] = field(default_factory=lambda: asyncio.Queue(_WAITING))


class LiveDesk:
    """All live streams of a server; used by one event loop."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self.count = 0
        self._catalogue, self._settings = catalogue, settings
        self._pool = ThreadPoolExecutor(os.cpu_count() or 2, "live")

    def close(self) -> None:
        """Waits for the blocks at work."""
        self._pool.shutdown(cancel_futures=True)

    async def serve(self, line: Line) -> None:
        """One client from its hello to its end; what is wrong is told in JSON before the line is closed."""
        try:
            hello = await self._greet(line)
        except ProblemError as error:
            await _refuse(line, error)
            return
        if self.count >= STREAMS:  # not before: whoever has no token and says nothing must not hold a place
            await _end(line, _TRY_LATER, f"{STREAMS} live streams are running; try again later")
            return
        self.count += 1
        try:
            streamer = await self._work(lambda: self._streamer(hello))
            await line.send_json({"type": "ready", "latency_samples": streamer.latency_samples, "rate": hello.rate})
            await self._follow(line, hello, streamer)
        except ProblemError as error:
            await _refuse(line, error)
        except SemambaError as error:
            await _end(line, _BAD_DATA, str(error))
        finally:
            self.count -= 1

    async def _greet(self, line: Line) -> Hello:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                first = await line.receive()
        except TimeoutError:
            raise ProblemError(422, "no hello came; send JSON with rate, channels and format first") from None
        content = _parse(first)
        token = self._settings.token
        if token is not None and not line.authorised and not same_token(str(content.get("token", "")), token):
            raise ProblemError(401, "this server needs a token; put it into the hello as 'token'")
        return read_hello(content)

    def _streamer(self, hello: Hello) -> Streamer:
        from semamba.inference.stream import Streamer

        enhancer = self._catalogue.get(hello.model)
        return Streamer(
            enhancer,
            hello.rate,
            hello.channels,
            "fixed",
            mix=hello.options.mix,
            attenuation_limit=hello.options.attenuation_limit,
            bandwidth=hello.options.bandwidth,
        )

    async def _follow(self, line: Line, hello: Hello, streamer: Streamer) -> None:
        tally = _Tally()
        reader = asyncio.create_task(_read(line, tally.queue))
        try:
            while True:
                data, message = await _gather(tally.queue)
                if data:
                    await line.send_bytes(await self._work(lambda data=data: _feed(streamer, hello, tally, data)))  # type: ignore[misc]
                if message is None:
                    return
                if message == "idle":
                    await _end(line, _GOING_AWAY, f"no sound for {IDLE_SECONDS:g} s")
                    return
                if message:
                    if _parse(message).get("type") != "end":
                        raise ProblemError(422, 'after the hello there are sound and {"type": "end"}, nothing else')
                    rest = await self._work(streamer.flush)
                    tally.given += rest.shape[1]
                    if rest.shape[1]:
                        await line.send_bytes(to_bytes(rest, hello.narrow))
                    await line.send_json({"type": "end", "samples": tally.given, "received": tally.taken})
                    await line.close(1000, "")
                    return
        finally:
            reader.cancel()

    async def _work(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


async def _read(line: Line, queue: asyncio.Queue[str | bytes | None]) -> None:
    """Messages into the queue; None at the end, "idle" when nothing came for too long."""
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                message = await line.receive()
        except TimeoutError:
            message = "idle"
        await queue.put(message)
        if message is None or message == "idle":
            return


async def _gather(queue: asyncio.Queue[str | bytes | None]) -> tuple[bytes, str | None]:
    """(all sound that waits, the message after it or ""); None when the other side has gone."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await queue.get() if not parts else queue.get_nowait()
        if not isinstance(message, bytes):
            return b"".join(parts), message
        parts.append(message)
        size += len(message)
        if queue.empty() or size >= _MAX_BATCH:
            return b"".join(parts), ""


def _feed(streamer: Streamer, hello: Hello, tally: _Tally, data: bytes) -> bytes:
    if len(data) % hello.frame_bytes:
        raise ProblemError(422, f"a message of sound must hold whole samples of {hello.frame_bytes} bytes")
    wave = from_bytes(data, hello.channels, hello.narrow)
    result = np.atleast_2d(streamer.feed(wave))
    tally.taken += wave.shape[1]
    tally.given += result.shape[1]
    return to_bytes(result, hello.narrow)


def read_hello(content: dict[str, Any]) -> Hello:
    """Raises ProblemError 422 naming the key."""
    known = {"rate", "channels", "format", "model", "options", "token"}
    if unknown := content.keys() - known:
        names = ", ".join(sorted(known))
        raise ProblemError(422, f"there is no key '{min(unknown)[:40]}' in a hello; there are: {names}")
    rate, channels = content.get("rate", 16_000), content.get("channels", 1)
    if type(rate) is not int or not _MIN_RATE <= rate <= MAX_RATE:
        raise ProblemError(422, f"rate must be a whole number of Hz, {_MIN_RATE} to {MAX_RATE}")
    if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
        raise ProblemError(422, f"channels must be a whole number, 1 to {MAX_CHANNELS}")
    form = content.get("format", "pcm16")
    if form not in ("pcm16", "float32"):
        raise ProblemError(422, "format must be pcm16 or float32")
    model = content.get("model")
    if model is not None and not isinstance(model, str):
        raise ProblemError(422, "model must be a name from /v1/models")
    return Hello(rate, channels, form == "pcm16", model or None, _read_options(content.get("options") or {}))


def _read_options(content: Any) -> Options:
    if not isinstance(content, dict) or content.keys() - {"mix", "attenuation_limit", "bandwidth"}:
        raise ProblemError(422, "options of a live stream are mix, attenuation_limit and bandwidth")
    mix, limit = content.get("mix", 1.0), content.get("attenuation_limit")
    if type(mix) not in (int, float) or type(limit) not in (int, float, type(None)):
        raise ProblemError(422, "mix and attenuation_limit are numbers")
    # What lies above 8 kHz costs 28 ms of waiting; live, that is worth saying aloud.
    return make_options(False, limit, mix, content.get("bandwidth", "model"))


def _parse(message: str | bytes | None) -> dict[str, Any]:
    try:
        content = json.loads(message) if isinstance(message, str) else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ProblemError(422, "expected a JSON object in a text message")
    return content


async def _refuse(line: Line, error: ProblemError) -> None:
    await _end(line, _POLICY if error.status in (401, 403) else _BAD_DATA, error.message)


async def _end(line: Line, code: int, words: str) -> None:
    await line.send_json({"type": "error", "error": words})
    await line.close(code, words)
