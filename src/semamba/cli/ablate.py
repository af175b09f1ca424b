"""`semamba ablate`: one file of differences becomes many trainings under one budget, a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semamba.train.ablation import Plan

SPEED_SECONDS = 10.0  # of audio, on which the trained models are timed


def ablate(
    recipe: Annotated[Path, typer.Argument(help="Ablation in YAML; see recipes/ablations.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="Manifest in CSV, as for semamba train.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs (default: runs/NAME).", show_default=False)
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Change a key in the recipe of every variant.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs with sizes and costs, train none.")] = False,
    report_only: Annotated[bool, typer.Option("--report", help="Train none, report on what is finished.")] = False,
    speed: Annotated[bool, typer.Option(help="Time the trained models on this machine, one thread.")] = True,
    cache: Annotated[
        Path | None, typer.Option(help="Keep the decoded audio here (default: OUT/cache).", show_default=False)
    ] = None,
) -> None:
    """Train variants of a recipe under an equal budget and several seeds, and compare them.

    Each run is an ordinary training in its own folder. Stop with Ctrl-C whenever you like: the same command skips what
    is finished and goes on with the rest. The report is OUT/report.md, .csv, .json, .svg and .png.
    """
    from semamba.errors import SemambaError
    from semamba.train import ablation, ablation_runs

    plan = ablation.read_plan(recipe, set_ or [])
    out = out or Path("runs") / plan.name
    if dry_run:
        _print_plan(plan, out)
        return
    failures = []
    if not report_only:
        from semamba.data.manifest import Manifest

        if data is None:
            raise typer.BadParameter("give the manifest of the training data", param_hint="--data")
        Manifest.read(data)
        failures = ablation_runs.run_all(plan, data, out, jobs, typer.echo, cache or out / "cache")
    _report(plan, out, speed)
    if failures:
        for failure in failures:
            typer.secho(f"{failure.job.name}: {failure.reason}", fg="red", err=True)
        raise SemambaError(f"{len(failures)} runs failed; the same command tries them again")


def _report(plan: Plan, out: Path, speed: bool) -> None:
    from semamba.profiling import machine, tradeoff
    from semamba.train import ablation_report

    results = ablation_report.collect(plan, out)
    folders = {result.job.variant.name: result.folder / "last" for result in reversed(results)}
    rtf = _measure_speed(folders, out) if speed else {}
    document = ablation_report.document(plan, results, machine.describe(1, "cpu"), rtf)
    ablation_report.write(document, out)
    typer.echo(ablation_report.markdown(document))
    tradeoff.draw(document, [out / "report.svg", out / "report.png"])
    typer.echo(f"report.md, .csv, .json, .svg and .png are in {out}")


def _measure_speed(folders: Mapping[str, Path], out: Path) -> dict[str, float]:
    """Real-time factor of each variant, on one thread; what an earlier report has measured is not measured again."""
    from semamba.checkpoint import write_json
    from semamba.profiling.runner import Limits, measure
    from semamba.profiling.spec import Measured, Spec

    path = out / "speed.json"
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, folder in folders.items():
        if name not in known:
            point = measure(Spec(str(folder), SPEED_SECONDS, threads=1), Limits())
            if isinstance(point, Measured):
                known[name] = point.median / SPEED_SECONDS
                write_json(path, known)
    return known


def _print_plan(plan: Plan, out: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from semamba.train.ablation_runs import status

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, heading in enumerate(["run", "parameters", "MMAC/s\npaper", "MMAC/s\nall", "steps", "hours\nheard", ""]):
        table.add_column(heading, justify="right" if 0 < index < 6 else "left", no_wrap=True)
    for job in plan.jobs():
        recipe, cost = job.variant.recipe, job.variant.cost
        steps = recipe.train.steps
        hours = steps * recipe.train.batch_size * recipe.mix.crop_seconds / 3600 if isinstance(steps, int) else None
        table.add_row(
            job.name,
            f"{cost.parameters:,}",
            f"{cost.paper_macs_per_second / 1e6:,.0f}",
            f"{cost.honest_macs_per_second / 1e6:,.0f}",
            f"{steps:,}" if isinstance(steps, int) else f"{plan.seconds:g} s",
            "-" if hours is None else f"{hours:.2f}",
            status(out, job),
        )
    Console(highlight=False).print(table)
