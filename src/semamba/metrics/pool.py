"""Parallel map over processes that survives a crash: the C code of PESQ can take its process down.

Nothing heavy is imported here, so that a worker sets its thread count before numpy is loaded. Workers are
spawned, not forked: they never inherit torch or its threads.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from semamba.processes import follow_parent

T = TypeVar("T")
R = TypeVar("R")


def available_cpus() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_isolated(
    function: Callable[[T], R], items: Iterable[T], jobs: int, on_crash: Callable[[T], R]
) -> Iterator[tuple[int, R]]:
    """Yield (position of the item, function(item)) as results arrive; at most 2 * jobs items are held at a time.

    When a worker dies, everything that was under way is repeated, each item in a process of its own, and the
    item that dies again gives `on_crash(item)`. Exceptions of `function` pass through.
    """
    numbered = enumerate(items)
    waiting: dict[Future[R], tuple[int, T]] = {}
    pool = new_pool(jobs)
    try:
        while True:
            lost: list[tuple[int, T]] = []
            for index, item in itertools.islice(numbered, 2 * jobs - len(waiting)):
                try:
                    waiting[pool.submit(function, item)] = (index, item)
                except BrokenProcessPool:
                    lost.append((index, item))
            if not waiting and not lost:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                index, item = waiting.pop(future)
                try:
                    yield index, future.result()
                except BrokenProcessPool:
                    lost.append((index, item))
            if lost:
                lost += waiting.values()
                waiting.clear()
                pool.shutdown()
                pool = new_pool(jobs)
                for index, item in lost:
                    yield index, _alone(function, item, on_crash)
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(function: Callable[[T], R], item: T, on_crash: Callable[[T], R]) -> R:
    with new_pool(1) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool:
            return on_crash(item)


def new_pool(jobs: int) -> ProcessPoolExecutor:
    """Spawned workers of one thread each; forking a process that runs torch's threads can deadlock."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker)


def _prepare_worker() -> None:
    """One thread per worker, since the files are the parallelism."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    follow_parent()
