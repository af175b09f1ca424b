"""`semamba models`: every configuration, its size and cost. `semamba convert`: official checkpoints to our format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_LEGEND = """\
GMAC: 10^9 multiply-accumulates of one pass over 321 frames, 2 s (advanced), or
250 frames, 4 s. "paper" counts as the published tables do, without most of Mamba
and attention; "honest" has every matrix product, convolution and scan, and so has
MMAC/s, 10^6 for a second of audio. Latency "-": the model needs the whole signal."""


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")] = False,
) -> None:
    """List the models: parameters, cost, latency, and whether trained weights come with the package."""
    rows = [describe(name) for name in names()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_table(rows)


def convert(
    weights: Annotated[Path, typer.Argument(help="Official SEMamba checkpoint (.pth).", show_default=False)],
    config: Annotated[Path, typer.Argument(help="Its configuration (.yaml).", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the converted model.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is already in OUT.")] = False,
) -> None:
    """Convert an official SEMamba checkpoint; the result works wherever a model name does."""
    from semamba.convert import convert as run

    model = run(weights, config, out, overwrite)
    count = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"{out}: {count:,} parameters converted; use it with --model {out}")


def names() -> list[str]:
    """Presets in the order of the tables, then shipped models that are not presets."""
    from semamba.checkpoint import shipped
    from semamba.models.presets import PRESETS

    return [*PRESETS, *(name for name in shipped() if name not in PRESETS)]


def describe(name: str) -> dict[str, Any]:
    """One row of `semamba models --json`. MACs are for one forward pass over `seconds` of audio."""
    from semamba import checkpoint
    from semamba.models import config_from_dict, preset
    from semamba.models.complexity import profile

    ships = name in checkpoint.shipped()
    config = config_from_dict(checkpoint.describe(name)["model"]) if ships else preset(name)
    cost = profile(config)
    return {
        "name": name,
        "kind": config.kind,
        "parameters": cost.parameters,
        "causal": cost.causal,
        "latency_ms": cost.latency_ms,
        "weights": ships,
        "default": name == checkpoint.DEFAULT_MODEL,
        "frames": cost.frames,
        "seconds": cost.seconds,
        "paper_macs": cost.paper_macs,
        "honest_macs": cost.honest_macs,
        "honest_parts": dict(cost.parts),
        "paper_macs_per_second": cost.paper_macs_per_second,
        "honest_macs_per_second": cost.honest_macs_per_second,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("model", "parameters", "GMAC\npaper", "GMAC\nhonest", "MMAC/s", "latency", "weights"):
        table.add_column(heading, justify="left" if heading in ("model", "weights") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['parameters']:,}",
            f"{row['paper_macs'] / 1e9:.3f}",
            f"{row['honest_macs'] / 1e9:.3f}",
            f"{row['honest_macs_per_second'] / 1e6:,.0f}",
            f"{row['latency_ms']:.0f} ms" if row["causal"] else "-",
            ("default" if row["default"] else "shipped") if row["weights"] else "-",
        )
    Console().print(table)
    typer.echo(_LEGEND)
