"""What a server allows, and the one error that becomes an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from semamba.errors import SemambaError

STATIC = Path(__file__).parent / "static"

# A file may ask for memory by its header alone: a block is two seconds of all channels.
MAX_CHANNELS = 16
MAX_RATE = 384_000  # Hz
WAITING = 32  # uploads that may wait for their turn; the next one is told to come back
STREAMS = 16  # live streams at the same time
HELLO_SECONDS = 10.0  # a live stream introduces itself by then
IDLE_SECONDS = 60.0  # and is closed after that long without sound
MAX_MESSAGE = 1 << 20  # bytes of one message of a live stream


@dataclass(frozen=True)
class Settings:
    """One server. Raises SemambaError for limits that would let nothing through."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None  # shipped name or folder; None: the default
    token: str | None = None
    max_megabytes: float = 200.0  # of one upload
    max_seconds: float = 3600.0  # of sound in one upload
    jobs: int = 0  # files worked on at the same time; 0: what suits the machine
    names: tuple[str, ...] = ()  # host names under which browsers may reach it, beside addresses and localhost

    def __post_init__(self) -> None:
        if not self.max_megabytes > 0 or not self.max_seconds > 0:
            raise SemambaError("--max-megabytes and --max-seconds must be above 0")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii()):
            raise SemambaError("--token needs at least 8 plain characters; anything shorter can be guessed")

    @property
    def max_bytes(self) -> int:
        return int(self.max_megabytes * 1e6)

    @property
    def workers(self) -> int:
        return self.jobs or max(1, (os.cpu_count() or 2) // 2)


class ProblemError(Exception):
    """Ends a request: `status` and one line for the person who sent it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
