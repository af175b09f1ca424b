"""`semamba train`: a recipe and a manifest become a trained model in a run folder."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semamba.train.loop import Outcome, Run


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML; see the folder recipes.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Manifest in CSV: path, split, kind ...", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/NAME).", show_default=False)] = None,
    resume: Annotated[str, typer.Option(help="auto, never, or the state file of another run.")] = "auto",
    time_budget: Annotated[
        str | None, typer.Option(help="Stop after this much training, for example 90m or 2h30m.", show_default=False)
    ] = None,
    slice_: Annotated[
        str | None,
        typer.Option("--slice", help="Stop this part after so long, for example 10m; go on later.", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the recipe.", show_default=False)
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Start from the weights of this model, a name or folder; as init in the recipe.", show_default=False
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Afterwards write the best weights and a model card here.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Keep the decoded audio here for the next start.", show_default=False)
    ] = None,
) -> None:
    """Train a model. Stop with Ctrl-C whenever you like; the same command goes on where it stopped."""
    from semamba.train.allocator import prepare_cpu
    from semamba.train.recipe import load_recipe, parse_duration

    loaded = load_recipe(recipe, set_ or [])
    if init is not None:
        loaded = dataclasses.replace(loaded, init=init)
    budget = parse_duration(time_budget) if time_budget else None
    part = parse_duration(slice_) if slice_ else math.inf
    prepare_cpu(loaded.train.threads, loaded.train.parallel)

    from semamba.data.manifest import Manifest
    from semamba.train import distributed, sources
    from semamba.train.loop import Run, check_start

    folder = out or Path("runs") / loaded.name
    check_start(loaded, folder, budget, resume)
    manifest = Manifest.read(data)
    ranks = distributed.join(loaded.train.device)
    run = Run(
        loaded,
        folder,
        sources.open_training(loaded, manifest, cache, ranks.share, ranks.device),
        sources.open_validation(loaded, manifest) if ranks.first else [],
        budget=budget,
        resume=resume,
        sources=sources.describe_sources(manifest),
        ranks=ranks,
        slice_seconds=part,
    )
    outcome = run.train()
    ranks.leave()
    if ranks.first:
        _finish(run, outcome, export)
    if isinstance(outcome.stopped, int):
        raise typer.Exit(128 + outcome.stopped)


def _finish(run: Run, outcome: Outcome, export: Path | None) -> None:
    best = f", best {run.recipe.valid.score} {outcome.best:.3f}" if math.isfinite(outcome.best) else ""
    typer.echo(f"{outcome.reason} at step {outcome.step}{best}; everything is in {run.folder.path}")
    if export is not None and run.folder.best.is_dir():  # not stopped before the first validation
        from semamba.train.ship import export as write

        write(run.folder.path, export)
        typer.echo(f"best weights and model card in {export}")
