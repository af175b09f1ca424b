"""How much work goes on at once: so many run, so many wait, the next one is told when to come back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from semamba.web.settings import ProblemError


class Gate:
    """Used by one event loop only."""

    def __init__(self, running: int, waiting: int) -> None:
        self._running, self._waiting = running, waiting
        self._slots = asyncio.Semaphore(running)
        self._inside = 0
        self._typical = 2.0  # seconds of a job, smoothed

    @property
    def inside(self) -> int:
        """Requests that run or wait."""
        return self._inside

    @contextlib.asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Raises ProblemError 429 at once when too many are inside."""
        if self._inside >= self._running + self._waiting:
            seconds = min(120, max(1, round(self._typical * self._inside / self._running)))
            raise ProblemError(
                429,
                f"{self._inside} files are being worked on; try again in about {seconds} s",
                {"Retry-After": str(seconds)},
            )
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits for its turn."""
        async with self._slots:
            started = time.monotonic()
            try:
                yield
            finally:
                self._typical += 0.2 * (time.monotonic() - started - self._typical)
