"""`semamba enhance`: noisy files in, better ones out."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semamba.cli import enhance_corpus
from semamba.errors import SemambaError

if TYPE_CHECKING:
    from rich.console import Console

    from semamba.inference.engine import Options
    from semamba.inference.enhance import Enhancer
    from semamba.inference.files import Result
    from semamba.inference.plan import Job

    Outcome = tuple[Job, Result | str]

PIPE = "-"


def enhance(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns, CSV lists (column path); - reads standard input."),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File or folder (- for standard output). Default: NAME.enhanced.SUFFIX."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A shipped model or a folder with weights.")] = None,
    pcs: Annotated[bool, typer.Option("--pcs", help="Contrast stretching: higher PESQ, less faithful.")] = False,
    attenuation_limit: Annotated[
        float | None, typer.Option(metavar="DB", help="Noise falls by this many dB at most.")
    ] = None,
    mix: Annotated[float, typer.Option(help="Share of the enhanced signal; 0 is the input.")] = 1.0,
    bandwidth: Annotated[str, typer.Option(help="'full' keeps what lies above 8 kHz, 'model' drops it.")] = "full",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Files worked on at the same time (default: 1; ray: one for each GPU or else each processor).",
            show_default=False,
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into sub-folders.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    engine: Annotated[
        str, typer.Option(help="threads; for many files: processes, which keep outputs that exist, or ray, a cluster.")
    ] = "threads",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster (default: this shell's, or one here).", show_default=False)
    ] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only every Nth file, from the Ith on.")] = None,
    failures: Annotated[
        Path | None, typer.Option(help="List files that failed here, as CSV.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")] = False,
) -> None:
    """Enhance speech in audio files; rate, channels, length, level and format stay as they are."""
    from rich.console import Console

    from semamba.inference import corpus
    from semamba.inference.engine import Options
    from semamba.inference.enhance import load
    from semamba.inference.plan import plan

    enhance_corpus.refuse_mixture(inputs, output, address, engine, failures)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    options = Options(pcs, attenuation_limit, mix, bandwidth)  # type: ignore[arg-type]
    if PIPE in inputs or output == PIPE:
        with _termination():
            _pipe(inputs, output, options, lambda: load(model, device), overwrite, console)
        return
    planned = plan(inputs, output, recursive)
    if shard is not None:
        planned = corpus.choose_shard(planned, shard)
    if engine != "threads":
        work = corpus.Work(model, options, device, overwrite)
        with _termination():
            complete = enhance_corpus.run(planned, work, engine, jobs, address, failures, quiet, console)
        if not complete:
            raise typer.Exit(1)
        return
    runnable = sum(not job.error for job in planned)
    enhancer = load(model, device) if runnable else None
    outcomes: list[Outcome] = []
    try:
        with _termination(), _progress(console, enabled=not quiet) as report:
            workers = min(jobs or 1, max(1, runnable))
            with contextlib.closing(_run_all(planned, enhancer, options, workers, overwrite, report)) as finished:
                for outcome in finished:
                    outcomes.append(outcome)
                    _say(console, outcome)
    finally:
        if failures is not None:
            failed = [corpus.failure_of(job, result) for job, result in outcomes if isinstance(result, str)]
            corpus.write_failures(failures, failed)
    if not quiet:
        _summary(console, outcomes)
    if any(isinstance(result, str) for _, result in outcomes):
        raise typer.Exit(1)


def _run_all(
    planned: list[Job],
    enhancer: Enhancer | None,
    options: Options,
    workers: int,
    overwrite: bool,
    report: Callable[[Job, int, int | None], None],
) -> Generator[Outcome]:
    """Outcomes as they come; Ctrl-C stops all files and leaves no half of any."""
    from semamba.inference.files import CancelledError, enhance_file

    stop = threading.Event()

    def work(job: Job) -> Outcome:
        if job.error or enhancer is None:
            return job, job.error
        try:
            result = enhance_file(
                enhancer,
                job.source,
                job.target,
                options,
                overwrite=overwrite,
                progress=lambda done, total: report(job, done, total),
                cancelled=stop.is_set,
            )
        except SemambaError as error:
            return job, str(error)
        except CancelledError:
            raise
        except Exception as error:
            # One file that asks too much of this machine, or of us, must not end the batch.
            return job, f"{job.source}: {type(error).__name__}: {' '.join(str(error).split())}"
        return job, result

    if workers == 1:
        yield from map(work, planned)
        return
    from concurrent.futures import ThreadPoolExecutor, as_completed

    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    # A signal that arrives while threads are being started could lose sight of one: none begins before all are there.
    ready = threading.Event()

    def start(job: Job) -> Outcome:
        ready.wait()
        return work(job)

    with ThreadPoolExecutor(workers) as pool:
        try:
            futures = [pool.submit(start, job) for job in planned]
            ready.set()
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            ready.set()
            pool.shutdown(cancel_futures=True)
            raise


def _pipe(
    inputs: list[str],
    output: str | None,
    options: Options,
    load: Callable[[], Enhancer],
    overwrite: bool,
    console: Console,
) -> None:
    """Standard input or output: the sound passes through a temporary folder, as headers need lengths."""
    from semamba.inference.files import enhance_file

    if len(inputs) != 1:
        raise SemambaError("a pipe takes exactly one input")
    with tempfile.TemporaryDirectory(prefix="semamba-") as folder:
        source, name = Path(inputs[0]), inputs[0]
        if name == PIPE:
            source, name = Path(folder) / "standard input", "standard input"
            if sys.stdin.isatty():
                raise SemambaError("standard input is a terminal; pipe a file into it, or name a file instead of -")
            with open(source, "wb") as spool:
                shutil.copyfileobj(sys.stdin.buffer, spool)
        elif not source.is_file():
            raise SemambaError(f"{source}: no such file; only one file can go to standard output")
        to_pipe = output == PIPE or (output is None and name == "standard input")
        target = Path(folder) / f"result{source.suffix}" if to_pipe else Path(str(output))
        try:
            result = enhance_file(load(), source, target, options, overwrite=overwrite)
        except SemambaError as error:
            raise SemambaError(str(error).replace(str(source), name).replace(str(target), "standard output")) from None
        for line in result.warnings:
            console.print(line.replace(str(source), name), style="yellow", markup=False)
        if to_pipe:
            try:
                with open(target, "rb") as finished:
                    shutil.copyfileobj(finished, sys.stdout.buffer)
                sys.stdout.flush()
            except BrokenPipeError:
                raise SemambaError("standard output was closed by the program that reads it") from None


@contextlib.contextmanager
def _termination() -> Iterator[None]:
    """A polite kill ends like Ctrl-C: by an exception, so that temporary files go."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress(console: Console, enabled: bool) -> Iterator[Callable[[Job, int, int | None], None]]:
    """A bar for each file at work, when standard error is a terminal."""
    if not (enabled and console.is_terminal):
        yield lambda job, done, total: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        tasks: dict[Any, TaskID] = {}

        def report(job: Job, done: int, total: int | None) -> None:
            if job not in tasks:
                tasks[job] = bars.add_task(job.source.name, total=total)
            bars.update(tasks[job], completed=done, total=total, visible=done != total)

        yield report


def _say(console: Console, outcome: Outcome) -> None:
    """Errors and warnings at once, so that nobody waits for the end of a batch to learn of them."""
    _, result = outcome
    if isinstance(result, str):
        console.print(f"error: {result}", style="red", markup=False)
        return
    for line in result.warnings:
        console.print(f"warning: {line}", style="yellow", markup=False)


def _summary(console: Console, outcomes: list[Outcome]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Output", overflow="fold")
    for name in ("Length", "Rate", "Channels", "Took", "Speed"):
        table.add_column(name, justify="right", no_wrap=True)
    done = sorted((r for _, r in outcomes if not isinstance(r, str)), key=lambda result: str(result.target))
    for result in done:
        table.add_row(
            escape(str(result.target)),
            f"{result.seconds:.1f} s",
            f"{result.sample_rate} Hz",
            str(result.channels),
            f"{result.elapsed:.1f} s",
            f"{result.seconds / max(result.elapsed, 1e-3):.1f}x",
        )
    if done:
        console.print(table)
    failed = len(outcomes) - len(done)
    if len(outcomes) > 1 or failed:
        console.print(f"{len(done)} enhanced, {failed} failed", style="red" if failed else "green")
