"""Servers for the tests: in a thread of this process, on a port that is free."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import uvicorn

from semamba.web.server import Workshop, create_app
from semamba.web.settings import MAX_MESSAGE, Settings


@dataclass
class Running:
    """`url` without a slash at its end; `shop` to look inside."""

    url: str
    shop: Workshop

    @property
    def socket(self) -> str:
        return self.url.replace("http", "ws") + "/v1/stream"

    def left_behind(self) -> list[Path]:
        """Files that are still there once nothing runs any more."""
        settled(lambda: not list(self.shop.folder.iterdir()) and not self.shop.gate.inside)
        return list(self.shop.folder.iterdir())


def settled(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Whether it became true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Running]:
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws_max_size=MAX_MESSAGE))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert settled(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", app.state.shop)
    finally:
        server.should_exit = True
        thread.join(30)


def noisy(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(channels, n): a tone that comes and goes in noise."""
    rng = np.random.default_rng(1)
    time_axis = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 220 * time_axis) * (np.sin(2 * np.pi * 1.5 * time_axis) > 0)
    wave = tone + 0.05 * rng.standard_normal((channels, len(time_axis)))
    return wave.astype(np.float32)


def encode(wave: np.ndarray[Any, Any], rate: int = 16_000, format: str = "WAV", subtype: str | None = None) -> bytes:
    memory = io.BytesIO()
    with soundfile.SoundFile(memory, "w", rate, len(wave), format=format, subtype=subtype) as file:
        for start in range(0, wave.shape[1], 65536):  # libsndfile's Vorbis encoder overflows its stack on minutes
            file.write(wave.T[start : start + 65536])
    return memory.getvalue()
