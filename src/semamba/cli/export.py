"""`semamba export`: a model as ONNX graphs, for runtimes without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(help="Shipped model or folder with weights.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the graphs.", show_default=False)],
    precision: Annotated[str, typer.Option(help="What to write: float32, float16, int8.")] = "float32,float16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is already there.")] = False,
) -> None:
    """Export a model to ONNX; each graph is compared with PyTorch before it is kept.

    Models that stream become a graph of one frame with explicit states, others a graph of the whole signal. The folder
    works with semamba.export.runtime, which needs no torch, and with any other ONNX runtime.
    """
    chosen = precision.split(",")
    known = ("float32", "float16", "int8")
    if unknown := [name for name in chosen if name not in known]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(known)}", param_hint="--precision")
    from semamba.export.onnx import export as run

    for graph in run(model, output, chosen, overwrite):
        typer.echo(
            f"{graph.path}: {graph.bytes / 1e6:.2f} MB, largest difference to PyTorch {graph.error:.1e}"
            f" ({graph.decibels:.0f} dB below the signal)"
        )
