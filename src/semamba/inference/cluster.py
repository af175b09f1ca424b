"""A corpus on a Ray cluster; the only file that imports ray (extra `scale`).

Rows go through Ray Data, which streams them to a pool of actors, restarts actors and repeats rows when a machine is
lost. A repeated row finds the output of the first attempt and keeps it, so every output is written once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from semamba.audio import remove_leftovers
from semamba.errors import SemambaError
from semamba.inference.corpus import BATCH, Row, Work, Worker
from semamba.inference.enhance import load


def run_ray(rows: Sequence[Row], work: Work, address: str | None = None, workers: int = 0) -> Generator[Row]:
    """Rows as they come back, in any order. `address` None joins the cluster of this shell or starts one here.

    `workers` actors at most, 0: one for each GPU of the cluster if it has any, else for each processor. Raises
    SemambaError when ray or the model is missing or the cluster cannot be reached.
    """
    if not rows:
        return
    try:
        import ray
    except ImportError:
        raise SemambaError("--engine ray needs Ray: pip install 'semamba[scale]'") from None
    load(work.model, "cpu")  # once here: an error in an actor comes back under pages of Ray's own
    joined = ray.is_initialized()
    if not joined:
        try:
            with _same_sigterm():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SemambaError(f"the Ray cluster '{address or 'here'}' cannot be reached ({reason})") from None
    try:
        yield from _stream(ray, rows, work, workers)
    finally:
        if not joined:
            ray.shutdown()
        remove_leftovers(Path(row["target"]) for row in rows)  # of workers that went down with their machine


@contextlib.contextmanager
def _same_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM over when it starts; the program that called keeps its own way to end."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may, and Ray does not
            signal.signal(signal.SIGTERM, before)


def _stream(ray: Any, rows: Sequence[Row], work: Work, workers: int) -> Iterator[Row]:
    import ray.data as data

    gpus = int(ray.cluster_resources().get("GPU", 0)) if work.device in ("auto", "cuda") else 0
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    pool = min(workers or gpus or cpus, -(-len(rows) // BATCH))
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Small blocks: what is lost with a machine is little, and results come back soon.
    blocks = data.from_items(list(rows), override_num_blocks=max(1, -(-len(rows) // BATCH)))
    results = blocks.map(
        _Actor,  # type: ignore[arg-type]
        fn_constructor_kwargs={"work": work},
        concurrency=(1, pool),
        num_cpus=0 if gpus else 1,
        num_gpus=1 if gpus else 0,
    )
    for row in results.iter_rows():
        yield dict(row)


class _Actor:
    """One worker of the pool, on whichever machine."""

    def __init__(self, work: Work) -> None:
        self._worker = Worker(work)

    def __call__(self, row: Row) -> Row:
        return self._worker(row)
