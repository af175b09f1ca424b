"""`semamba enhance --engine processes` that is stopped in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

FILES, FRAMES = 20, 40 * 16_000  # more than one worker takes at a time; seconds of work in each

# A shell's background job, and so perhaps this test, ignores SIGINT; and so would the command.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    from semamba.cli import app
    app()
"""


def settled(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not condition():
        time.sleep(0.05)
    return condition()


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def workers_of(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if ours and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_stopped_run_leaves_nothing_and_goes_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    source, out, failures = tmp_path / "in", tmp_path / "out", tmp_path / "failed.csv"
    source.mkdir()
    noise = (0.1 * np.random.default_rng(0).standard_normal(FRAMES)).astype(np.float32)
    for index in range(FILES):
        soundfile.write(source / f"u{index:02d}.wav", noise, 16_000)
    command = [sys.executable, "-c", COMMAND, "enhance", str(source), "-o", str(out)]
    command += ["--engine", "processes", "-j", "2", "--failures", str(failures)]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        workers: list[int] = []
        try:
            assert settled(lambda: len(list(out.glob(".semamba*"))) == 2 and bool(list(out.glob("u*"))), 120)
            workers = workers_of(process.pid)
            assert len(workers) == 2
            process.send_signal(number)
            assert settled(lambda: process.poll() is not None, 8)
            # A parent that is killed cannot wait for its workers.
            assert settled(lambda: not any(map(is_there, workers)), 8 if number == signal.SIGKILL else 0)
        finally:
            process.kill()
            for pid in filter(is_there, workers):
                os.kill(pid, signal.SIGKILL)
    assert process.returncode == code
    assert list(out.glob(".semamba*")) == []
    done = list(out.iterdir())
    assert 0 < len(done) < FILES and all(soundfile.info(path).frames == FRAMES for path in done)
    assert failures.exists() or number == signal.SIGKILL
    for path in source.iterdir():  # what is left to do need not take long
        if not (out / path.name).exists():
            soundfile.write(path, noise[:8000], 16_000)
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and f"{FILES - len(done)} enhanced, {len(done)} were there, 0 failed" in again.stderr
