"""`semamba enhance --engine processes | ray`: a corpus, file by file, with a line of progress instead of a table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from semamba.errors import SemambaError

if TYPE_CHECKING:
    from rich.console import Console

    from semamba.inference.corpus import Row, Work
    from semamba.inference.plan import Job

ENGINES = ("threads", "processes", "ray")
SHOWN = 20  # failures on the screen; the file has them all


def run(
    planned: list[Job],
    work: Work,
    engine: str,
    jobs: int | None,
    address: str | None,
    failures: Path | None,
    quiet: bool,
    console: Console,
) -> bool:
    """Whether every file is done. What failed is listed in `failures`; a run that is stopped writes that list too."""
    from semamba.inference import corpus

    ready, results = corpus.rows_of(planned)
    started, seconds, counts = time.monotonic(), 0.0, Counter(row["status"] for row in results)
    try:
        # Closed at once, not when the garbage is collected: an exception here must stop the workers too.
        with (
            _Progress(console, len(planned), quiet) as advance,
            closing(_start(ready, work, engine, jobs, address)) as rows,
        ):
            for row in results[:SHOWN]:
                _say(console, row)
            for row in rows:
                counts[row["status"]] += 1
                seconds += row["seconds"]
                if row["status"] == corpus.FAILED:
                    results.append(row)
                    if len(results) <= SHOWN:
                        _say(console, row)
                advance(counts)
    finally:
        if failures is not None:
            corpus.write_failures(failures, results)
    took = time.monotonic() - started
    failed = counts[corpus.FAILED]
    if not quiet:
        where = f", listed in {failures}" if failures is not None and failed else ""
        console.print(
            f"{counts[corpus.DONE]} enhanced, {counts[corpus.KEPT]} were there, {failed} failed{where}; "
            f"{seconds / 60:.1f} min of sound in {took:.1f} s",
            style="red" if failed else "green",
        )
    return not failed


def _say(console: Console, failed: Row) -> None:
    console.print(f"error: {failed['message']}", style="red", markup=False)


def _start(ready: list[Row], work: Work, engine: str, jobs: int | None, address: str | None) -> Generator[Row]:
    if engine == "ray":
        from semamba.inference.cluster import run_ray

        return run_ray(ready, work, address, jobs or 0)
    from semamba.inference.corpus import run_processes

    return run_processes(ready, work, jobs or 1)


class _Progress:
    """A line that is painted over on a terminal, a line a minute elsewhere."""

    def __init__(self, console: Console, total: int, quiet: bool) -> None:
        self._console, self._total, self._quiet, self._last = console, total, quiet, time.monotonic()
        self._status = console.status("starting") if console.is_terminal and not quiet else None

    def __enter__(self) -> _Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, counts: Counter[str]) -> None:
        text = f"{sum(counts.values())} of {self._total} files, {counts['failed']} failed"
        if self._status is not None:
            self._status.update(text)
        elif not self._quiet and time.monotonic() - self._last > 60:
            self._console.print(text)
            self._last = time.monotonic()


def refuse_mixture(
    inputs: Iterable[str], output: str | None, address: str | None, engine: str, failures: Path | None
) -> None:
    """Raise SemambaError for options that do not go together, and for a list of failures that cannot be written."""
    if engine not in ENGINES:
        raise SemambaError(f"--engine '{engine}': there are {', '.join(ENGINES)}")
    if address is not None and engine != "ray":
        raise SemambaError("--address belongs to --engine ray")
    if "-" in inputs or output == "-":
        if engine != "threads":
            raise SemambaError(f"--engine {engine} works on files, not on pipes")
        if failures is not None:
            raise SemambaError("--failures lists files; a pipe is none")
    if failures is not None and not failures.absolute().parent.is_dir():
        raise SemambaError(f"{failures}: the folder {failures.absolute().parent} does not exist")
