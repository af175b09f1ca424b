"""One measurement in a process of its own: its memory is nobody else's, and it can be stopped at a limit."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from semamba.errors import SemambaError
from semamba.profiling.machine import resident_bytes
from semamba.profiling.spec import Measured, Skipped, Spec

_POLL_SECONDS = 0.02  # memory may go over its limit by what can be touched in between, some 50 MB
_START_SECONDS = 180.0  # for imports and for making the model


@dataclass(frozen=True)
class Limits:
    """A point that goes over one of these is given up."""

    seconds: float = 60.0  # of one pass, or of a whole stream
    gigabytes: float = 8.0  # of passes, beyond a process that is warm


def measure(spec: Spec, limits: Limits) -> Measured | Skipped:
    """Raises SemambaError when the process fails for any reason other than a limit."""
    spec = replace(spec, limit_bytes=int(limits.gigabytes * 1e9))
    environment = dict(os.environ)
    if spec.threads:
        environment["OMP_NUM_THREADS"] = str(spec.threads)
    command = [sys.executable, "-m", "semamba.profiling.worker", json.dumps(asdict(spec))]
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment)
        try:
            outcome = _watch(process, spec, limits)
        finally:
            process.kill()
            process.wait()
        if outcome is not None:
            return outcome
        complaints.seek(0)
        lines = complaints.read().strip().splitlines()
    reason = lines[-1] if lines else f"its process ended with code {process.returncode}"
    raise SemambaError(f"profiling '{spec.subject}' failed: {reason.removeprefix('semamba.errors.SemambaError: ')}")


def _watch(process: subprocess.Popen[str], spec: Spec, limits: Limits) -> Measured | Skipped | None:
    """Follow the process until its result; None when it ended without one."""
    base: int | None = None
    since, allowed = time.monotonic(), _START_SECONDS
    too_much = Skipped(f"needs over {limits.gigabytes:g} GB")
    for event in _events(process):
        if event is not None:
            kind = event.pop("event")
            if kind == "result":
                return Measured(**event)
            if kind == "memory":
                return too_much
            if kind == "ready":
                base = event["resident"]
            else:
                since, allowed = time.monotonic(), limits.seconds
        if time.monotonic() - since > allowed:
            return Skipped(f"takes over {allowed:g} s")
        held = resident_bytes(process.pid) if base is not None and spec.device == "cpu" else None
        if held is not None and base is not None and held - base > limits.gigabytes * 1e9:
            return too_much
    return None


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any] | None]:
    """What the process says, and None whenever it has said nothing for a moment; ends with its output."""
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            yield None
            continue
        if line is None:
            process.wait()
            return
        yield json.loads(line)


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
