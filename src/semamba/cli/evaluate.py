"""`semamba evaluate`: score enhanced recordings, or a model on noisy ones, against clean recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semamba.errors import SemambaError

if TYPE_CHECKING:
    from semamba.metrics.evaluate import Preparation, Scored

Files = list[tuple[str, Path, Path]]  # (name, clean file, enhanced or noisy file)


def evaluate(
    clean: Annotated[Path, typer.Option(help="Clean recordings: a folder, or one file.", show_default=False)],
    enhanced: Annotated[
        Path | None, typer.Option(help="Enhanced recordings with the same relative names.", show_default=False)
    ] = None,
    noisy: Annotated[
        Path | None, typer.Option(help="Noisy recordings with the same relative names.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Enhance --noisy with this model (name or folder) [default: the shipped one].", show_default=False
        ),
    ] = None,
    with_noisy: Annotated[bool, typer.Option("--with-noisy", help="Score the noisy recordings too.")] = False,
    pcs: Annotated[bool, typer.Option("--pcs", help="Apply perceptual contrast stretching before scoring.")] = False,
    trim: Annotated[bool, typer.Option("--trim", help="Cut pairs of unequal length to the shorter.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score only the first N pairs, by name.", show_default=False)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes [default: all processors].", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs: cpu, cuda, ...", show_default=False)] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of each file here.", show_default=False)] = None,
    json: Annotated[Path | None, typer.Option(help="Write means and all scores here.", show_default=False)] = None,
) -> None:
    """Measure PESQ, STOI, ESTOI, SI-SDR, segmental SNR and CSIG/CBAK/COVL at 16 kHz.

    Files that cannot be scored are named, counted and left out of the mean; the exit code is then 1.
    """
    tested = noisy if enhanced is None else enhanced
    if tested is None or (enhanced is not None and model is not None):
        raise typer.BadParameter("give either --enhanced FOLDER, or --noisy FOLDER with or without --model NAME")
    if with_noisy and noisy is None:
        raise typer.BadParameter("--with-noisy needs --noisy FOLDER")

    if enhanced is None and model is None:
        from semamba.checkpoint import DEFAULT_MODEL

        model = DEFAULT_MODEL
    from semamba.metrics import intrusive, pairs, pool
    from semamba.metrics.evaluate import Preparation, Scored

    intrusive.require_extra()
    for target in (csv, json):
        _check_target(target)
    jobs = jobs or pool.available_cpus()
    preparation = Preparation(trim=trim, pcs=pcs)
    columns: dict[str, Sequence[Scored]] = {}
    files, unpaired = pairs.find_pairs(clean, tested)
    files, unpaired = (files[:limit], {}) if limit else (files, unpaired)
    if noisy is not None and (with_noisy or model is None):
        columns["noisy"] = _score_noisy(files, clean, noisy, jobs, Preparation(trim=trim))
    if model is None:
        scored = _score_files("enhanced", files, jobs, preparation)
    else:
        scored = _score_model(files, model, device, jobs, preparation)
    scored += [Scored(name, problems={"file": reason}) for name, reason in unpaired.items()]
    columns["enhanced"] = scored

    _print_report(columns, f"{model or enhanced}{' + PCS' if pcs else ''}")
    _write_reports(columns, csv, json, {"model": model, "pcs": pcs, "trim": trim, "limit": limit})
    if any(result.problems for results in columns.values() for result in results):
        raise typer.Exit(1)


def _score_noisy(files: Files, clean: Path, noisy: Path, jobs: int, preparation: Preparation) -> list[Scored]:
    """Scores of the noisy recordings that belong to the same clean ones as `files`."""
    from semamba.metrics.pairs import find_pairs

    names = {name for name, _, _ in files}
    return _score_files("noisy", [file for file in find_pairs(clean, noisy)[0] if file[0] in names], jobs, preparation)


def _score_files(what: str, files: Files, jobs: int, preparation: Preparation) -> list[Scored]:
    from semamba.metrics.evaluate import Pair, evaluate_pairs

    with _progress(f"Scoring {what}", len(files)) as advance:
        return evaluate_pairs([Pair(*file) for file in files], min(jobs, len(files)), preparation, advance)


def _score_model(files: Files, model: str, device: str | None, jobs: int, preparation: Preparation) -> list[Scored]:
    import semamba
    from semamba.metrics.evaluate import evaluate_enhancer

    enhancer = semamba.load(model, device=device)
    with _progress(f"Enhancing and scoring with {model}", len(files)) as advance:
        return evaluate_enhancer(files, enhancer, min(jobs, len(files)), preparation, advance)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[Scored], None]]:
    """A bar on stderr; yields the function to call with each result."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda _: bar.advance(task)


def _print_report(columns: dict[str, Sequence[Scored]], title: str) -> None:
    """Table of means with intervals on stdout, what was left out on stderr."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from semamba.metrics import report

    summaries = {key: report.summarise(scored) for key, scored in columns.items()}
    change = report.changes(columns["noisy"], columns["enhanced"]) if "noisy" in columns else None
    caption = f"mean over n files ± half of the interval ({report.INTERVAL})"
    table = Table(title=escape(title), caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("measure", no_wrap=True)
    for key in [*summaries, *(["change"] if change else [])]:
        table.add_column(key, justify="right", no_wrap=True)
        table.add_column("n", justify="right", no_wrap=True)
    for metric, label in report.LABELS.items():
        cells = [escape(label)]
        for summary in summaries.values():
            cells += [summary[metric].text(metric), str(summary[metric].count)]
        if change:
            cells += [change[metric].text(metric, sign=True), str(change[metric].count)]
        table.add_row(*cells)
    Console().print(table)
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for key, scored in columns.items():
        lines = report.problem_lines(scored)
        if lines:
            errors.print(f"[red]{len(lines)} of {len(scored)} {key} files left out, in part or whole:[/red]")
        for line in lines:
            errors.print(f"  {escape(line)}")


def _write_reports(
    columns: dict[str, Sequence[Scored]], csv: Path | None, json: Path | None, settings: dict[str, object]
) -> None:
    from semamba.metrics import report

    if csv is not None:
        report.write_csv(csv, {"" if key == "enhanced" else f"{key}_": scored for key, scored in columns.items()})
    if json is not None:
        content = report.document(columns["enhanced"]) | {"settings": settings}
        if "noisy" in columns:
            content["noisy"] = report.document(columns["noisy"])
        report.write_json(json, content)


def _check_target(path: Path | None) -> None:
    """Refuse a report that cannot be written before an hour is spent on scoring."""
    import os

    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise SemambaError(f"{path}: the folder {folder} does not exist")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise SemambaError(f"{path}: cannot be written here")
