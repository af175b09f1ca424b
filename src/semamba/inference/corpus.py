"""Many files at once: what one worker does with a file, a pool of processes, and what a run leaves in writing.

A row is a plain dict, so that it travels between processes and machines: {"source", "target"} goes in; "status" (done,
kept, failed), "message", "seconds" of sound and "elapsed" come back. An output is complete or not there (see `files`),
so a file whose output is there is done: that is all that a resumed run has to know.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from semamba.audio import remove_leftovers
from semamba.errors import SemambaError
from semamba.files import write_atomic
from semamba.inference.engine import Options
from semamba.inference.plan import Job

Row = dict[str, Any]
DONE, KEPT, FAILED = "done", "kept", "failed"
BATCH = 16  # files that a worker takes at a time
GRACE = 3.0  # seconds that a worker has for the block under way when the run is stopped
COLUMNS = ("source", "target", "message")


@dataclass(frozen=True)
class Work:
    """What is done to every file."""

    model: str | None = None
    options: Options = Options()
    device: str = "cpu"
    overwrite: bool = False
    threads: int = 1  # of torch in each worker: the files are the parallelism


class Worker:
    """Loads its model once, then takes rows; a file that fails becomes a row that says why."""

    def __init__(self, work: Work, cancelled: Callable[[], bool] = lambda: False) -> None:
        """`cancelled` makes the next call, or the one under way, raise CancelledError."""
        import torch

        from semamba.inference.enhance import load

        torch.set_num_threads(work.threads)
        self._work, self._cancelled, self._enhancer = work, cancelled, load(work.model, work.device)

    def __call__(self, row: Row) -> Row:
        from semamba.inference.files import CancelledError, enhance_file, refuse_replacing_input

        source, target = Path(row["source"]), Path(row["target"])
        outcome = {"source": row["source"], "target": row["target"], "message": "", "seconds": 0.0, "elapsed": 0.0}
        if self._cancelled():
            raise CancelledError
        try:
            refuse_replacing_input(source, target, self._work.overwrite)
            if target.exists() and not self._work.overwrite:
                return outcome | {"status": KEPT}
            target.parent.mkdir(parents=True, exist_ok=True)
            result = enhance_file(
                self._enhancer,
                source,
                target,
                self._work.options,
                overwrite=self._work.overwrite,
                cancelled=self._cancelled,
            )
        except SemambaError as error:
            return outcome | {"status": FAILED, "message": str(error)}
        except CancelledError:
            raise
        except Exception as error:  # one file that asks too much of this machine must not end the run
            reason = f"{row['source']}: {type(error).__name__}: {' '.join(str(error).split())}"
            return outcome | {"status": FAILED, "message": reason}
        measured = {"seconds": result.seconds, "elapsed": result.elapsed}
        return outcome | measured | {"status": DONE, "message": "; ".join(result.warnings)}


def rows_of(jobs: Iterable[Job]) -> tuple[list[Row], list[Row]]:
    """(rows to work on, rows that failed in planning); paths are absolute, as workers may stand elsewhere."""
    ready: list[Row] = []
    failed: list[Row] = []
    for job in jobs:
        if job.error:
            failed.append(failure_of(job, job.error))
        else:
            ready.append(_paths(job))
    return ready, failed


def failure_of(job: Job, message: str) -> Row:
    """The row of a file that failed."""
    return _paths(job) | {"status": FAILED, "message": message, "seconds": 0.0, "elapsed": 0.0}


def _paths(job: Job) -> Row:
    return {"source": str(job.source.absolute()), "target": str(job.target.absolute())}


def choose_shard(jobs: Sequence[Job], text: str) -> list[Job]:
    """Every Nth job from the Ith on, of `I/N` with I from 1 to N: N machines that share a disk need nothing else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SemambaError(f"shard '{text}': write I/N, for example 1/8 to 8/8")
    return list(jobs[int(match[1]) - 1 :: int(match[2])])


def run_processes(rows: Sequence[Row], work: Work, processes: int) -> Generator[Row]:
    """Rows as they come back from a pool of processes. A process that dies costs the file that it worked on.

    Raises SemambaError when the model or the device is not there.
    """
    from semamba.inference.enhance import load

    if not rows:
        return
    load(work.model, work.device)  # once here: an error in a pool's initializer looks like a process that died
    batches = _batched(rows, BATCH)
    line, stop = multiprocessing.Pipe(duplex=False)
    pool = _pool(work, processes, line)
    waiting: dict[Future[list[Row]], list[Row]] = {}
    lost: list[list[Row]] = []
    try:
        while True:
            lost = []
            for batch in islice(batches, 2 * processes - len(waiting)):
                try:
                    waiting[pool.submit(_work_on, batch)] = batch
                except BrokenProcessPool:  # since the last look
                    lost.append(batch)
                    break
            if not waiting and not lost:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                batch = waiting.pop(future)
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    lost.append(batch)
            if lost:
                lost += waiting.values()
                waiting.clear()
                pool.shutdown(cancel_futures=True)
                _remove_leftovers(lost)
                for batch in lost:  # one file at a time, so that the one that kills is found
                    for row in batch:
                        pool = _pool(work, 1, line)
                        try:
                            yield from pool.submit(_work_on, [row]).result()
                        except BrokenProcessPool:
                            _remove_leftovers([[row]])
                            reason = f"{row['source']}: its process died; is there enough memory?"
                            yield row | {"status": FAILED, "message": reason, "seconds": 0.0, "elapsed": 0.0}
                        pool.shutdown()
                pool = _pool(work, processes, line)
    finally:
        stop.close()
        pool.shutdown(cancel_futures=True)
        line.close()
        _remove_leftovers([*waiting.values(), *lost])


def write_failures(path: Path, rows: Iterable[Row]) -> int:
    """Write those that failed as CSV (source, target, message), complete or not at all; returns how many."""
    failed = sorted((row for row in rows if row["status"] == FAILED), key=lambda row: row["source"])

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(failed)

    try:
        write_atomic(path, write)
    except OSError as error:
        raise SemambaError(f"{path}: cannot be written ({error.strerror or error})") from None
    return len(failed)


def _batched(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    source = iter(rows)
    while batch := list(islice(source, size)):
        yield batch


_worker: Worker | None = None  # of this process, in a pool


def _pool(work: Work, processes: int, line: Connection) -> ProcessPoolExecutor:
    # Spawned: forking a process that runs torch's threads can deadlock.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=(work, line))


def _start_worker(work: Work, line: Connection) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    stop = threading.Event()
    threading.Thread(target=_listen, args=(line, stop), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(work.threads)
    _worker = Worker(work, stop.is_set)


def _listen(line: Connection, stop: threading.Event) -> None:
    """Ends this process when its parent closes the line: to stop the run, or by dying of whatever.

    Not a multiprocessing.Event: its lock stays taken when a worker dies at the wrong moment.
    """
    connection.wait([line])
    stop.set()
    time.sleep(GRACE)
    os._exit(1)


def _work_on(batch: list[Row]) -> list[Row]:
    assert _worker is not None
    return [_worker(row) for row in batch]


def _remove_leftovers(batches: Iterable[list[Row]]) -> None:
    remove_leftovers(Path(row["target"]) for batch in batches for row in batch)
