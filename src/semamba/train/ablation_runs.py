"""The runs of an ablation, each in a process and a folder of its own, and what is already done of them.

Beside what every training writes (see `state.RunFolder`) a run folder holds recipe.yaml, output.txt (what the process
said) and, once all steps are done, finished.json.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semamba import config
from semamba.checkpoint import write_atomic, write_json
from semamba.errors import SemambaError
from semamba.train.ablation import Job, Plan
from semamba.train.state import RunFolder
from semamba.train.tracking import duration

Say = Callable[[str], None]
Status = Literal["new", "interrupted", "finished"]

PROGRAM = (sys.executable, "-c", "from semamba.cli import main; main()")


@dataclass(frozen=True)
class Failure:
    job: Job
    reason: str


def status(out: Path, job: Job) -> Status:
    """How far a run is. Raises SemambaError when its folder belongs to a run with other settings."""
    folder = out / job.name
    recipe = folder / "recipe.yaml"
    if not recipe.exists():
        return "new"
    if config.load_yaml(recipe) != _stored(job):
        raise SemambaError(f"{recipe}: this run was made with other settings; give another --out, or delete its folder")
    finished = folder / "finished.json"
    if finished.exists():
        spent = json.loads(finished.read_text(encoding="utf-8")).get("budget")
        if spent != job.seconds:
            raise SemambaError(f"{finished}: this run had another budget; give another --out, or delete its folder")
        return "finished"
    return "interrupted" if RunFolder(folder).state.exists() else "new"


def run_all(plan: Plan, data: Path, out: Path, jobs: int, say: Say, cache: Path | None = None) -> list[Failure]:
    """Train everything that is not finished, `jobs` runs at a time; one that fails is reported and the rest goes on."""
    todo = list(plan.jobs())
    waiting = [job for job in todo if status(out, job) != "finished"]
    if len(waiting) < len(todo):
        say(f"{len(todo) - len(waiting)} of {len(todo)} runs are finished already")
    running = _Processes()
    failures = []
    with running.stopped_by_signals(), ThreadPoolExecutor(jobs, "ablation") as pool:
        futures: dict[Future[float], Job] = {}
        for job in waiting:
            command = [*_command(plan, job, data, out), *(["--cache", str(cache)] if cache else [])]
            futures[pool.submit(_run_one, running, command, out, job, say)] = job
        for count, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            try:
                say(f"{job.name}: done in {duration(future.result())}, {len(waiting) - count} to go")
            except SemambaError as error:
                failures.append(Failure(job, str(error)))
                if not running.stop:
                    say(f"{job.name}: failed: {error}")
    if running.stop:
        raise KeyboardInterrupt
    return failures


def _run_one(running: _Processes, command: Sequence[str], out: Path, job: Job, say: Say) -> float:
    """Seconds that the process took. Raises SemambaError with the last line that it said."""
    if running.stop:
        raise SemambaError("not started")
    folder, begun = out / job.name, time.monotonic()
    say(f"{job.name}: {'goes on' if status(out, job) == 'interrupted' else 'starts'}")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "recipe.yaml", lambda path: path.write_text(_as_yaml(_stored(job)), encoding="utf-8"))
    with open(folder / "output.txt", "ab") as output:
        code = running.wait(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
    if code:
        raise SemambaError(f"{_last_line(folder / 'output.txt')} (exit code {code}; all of it in {folder}/output.txt)")
    seconds = time.monotonic() - begun
    done = {"variant": job.variant.name, "seed": job.seed, "seconds": round(seconds, 1), "budget": job.seconds}
    write_json(folder / "finished.json", done)
    return seconds


def _command(plan: Plan, job: Job, data: Path, out: Path) -> list[str]:
    folder = out / job.name
    command = [*PROGRAM, "train", str(folder / "recipe.yaml"), "--data", str(data), "--out", str(folder)]
    return command if plan.seconds is None else [*command, "--time-budget", f"{plan.seconds:g}s"]


class _Processes:
    """The trainings that are running. The first signal to stop is passed on to them: each saves its state and ends."""

    def __init__(self) -> None:
        self.stop = False
        self._lock = threading.Lock()
        self._alive: set[subprocess.Popen[bytes]] = set()

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        with self._lock:
            self._alive.add(process)
            if self.stop:
                process.terminate()
        try:
            return process.wait()
        finally:
            with self._lock:
                self._alive.discard(process)

    def _note(self, number: int, frame: Any) -> None:
        self.stop = True
        for process in list(self._alive):  # no lock: a handler may interrupt the thread that holds it
            process.terminate()

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _stored(job: Job) -> dict[str, Any]:
    """The recipe as YAML and JSON give it back: tuples are lists."""
    stored: dict[str, Any] = json.loads(json.dumps(job.mapping))
    return stored


def _as_yaml(mapping: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it ended without a word"
