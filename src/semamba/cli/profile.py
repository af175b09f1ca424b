"""`semamba profile`: what models cost on this machine, and how the cost grows with the length of the signal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

_LEGEND = """\
RTF: seconds of work for a second of audio, batch 1. Speed: seconds of audio done
in a second. MMAC/s: 10^6 multiply-accumulates for a second of audio, as the paper
counts and with nothing left out. Peak: memory of weights and passes, batch 1.
Times are medians; each point was measured in a process of its own."""


def profile(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models, folders with weights, or core-mamba, core-transformer, core-conformer, core-lstm."
            "  (default: all models, then the cores over --lengths)",
            show_default=False,
        ),
    ] = None,  # fmt: skip
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the signal that models are measured on.")] = 10.0,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0 is torch's own choice.")] = 0,
    batch: Annotated[str, typer.Option(help="Signals at once, one point each.")] = "1,4",
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Seconds of audio to compare MODELS over, or without MODELS the four cores."
            "  (default: 1,2,5,10,30,60 for --plot and without MODELS)",
            show_default=False,
        ),
    ] = None,  # fmt: skip
    stream: Annotated[bool, typer.Option("--stream", help="Time causal models hop by hop as well.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write every figure here too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw time and memory over length: .png, .svg, .pdf.")] = None,
    limit_seconds: Annotated[float, typer.Option(min=0.01, help="Skip what takes longer for one pass.")] = 60.0,
    limit_gb: Annotated[
        float | None,
        typer.Option(min=0.01, help="Skip what needs more.  (default: half of what is free)", show_default=False),
    ] = None,
) -> None:
    """Measure models here: time, memory, throughput, cost, stages, and growth with length.

    Presets without trained weights are measured with random ones. A point over a limit is stopped and marked, and there
    is no figure for it. Quiet machines give figures worth keeping: the load before the start is part of the report.
    """
    batches = [int(value) for value in _numbers("--batch", batch)]
    grow = lengths is not None or plot is not None or not models
    if device != "auto" and device.partition(":")[0] not in ("cpu", "cuda"):
        raise typer.BadParameter(f"'{device}' is none of cpu, cuda, auto", param_hint="--device")
    chosen = _numbers("--lengths", lengths or "1,2,5,10,30,60") if grow else []

    from rich.console import Console

    from semamba.inference.enhance import choose_device
    from semamba.profiling import subjects, survey
    from semamba.profiling.plot import draw, prepare
    from semamba.profiling.runner import Limits

    if plot is not None:
        prepare(plot)
    if json_ is not None:
        _check_folder(json_)
    console = Console(stderr=True)
    with console.status("starting") as status:
        document = survey.run(
            survey.Survey(
                names=models or subjects.default_names(),
                compared=(models or list(subjects.CORES)) if grow else [],
                seconds=seconds,
                batches=batches,
                lengths=chosen,
                device=str(choose_device(device)),
                threads=threads,
                stream=stream,
                limits=Limits(limit_seconds, survey.default_gigabytes() if limit_gb is None else limit_gb),
            ),
            status.update,
        )
    if json_ is not None:
        from semamba.checkpoint import write_json

        write_json(json_, document)
    if plot is not None:
        draw(document, plot)
    _print(document)
    if warning := survey.busy(document):
        typer.secho(warning, fg="yellow", err=True)


def _numbers(option: str, text: str) -> list[float]:
    """Positive numbers between commas; for --batch whole ones."""
    try:
        values = [int(part) if option == "--batch" else float(part) for part in text.split(",")]
        if not all(0 < value < 1e6 for value in values):
            raise ValueError
    except ValueError:
        kind = "whole numbers" if option == "--batch" else "numbers"
        raise typer.BadParameter(f"'{text}' is not a list of positive {kind} like 1,2,5", param_hint=option) from None
    return sorted(set(values))


def _check_folder(path: Path) -> None:
    from semamba.errors import SemambaError

    if not path.parent.is_dir():
        raise SemambaError(f"{path}: there is no folder {path.parent}")


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console

    machine = document["machine"]
    place = f"{machine['gpu']}, " if machine["gpu"] else ""
    typer.echo(f"{place}{machine['processor']}, {machine['processors']} processors, {machine['threads']} threads")
    typer.echo(f"{machine['kernels']}, torch {machine['torch']}, load {machine['load']} before the start")
    console = Console(highlight=False)
    rows, series = document["models"], document["lengths"]
    console.print(_models(rows, document["settings"]["seconds"]))
    typer.echo(_LEGEND)
    _say_what_is_missing(rows, series)
    _stages(rows)
    streams = [row for row in rows if "hop" in row.get("stream", {})]
    if streams:
        console.print(_streams(streams))
    if series:
        console.print(_lengths(series, "seconds for one pass", "time", lambda value: f"{value:.3g}"))
        console.print(_lengths(series, "peak MB", "peak_bytes", _megabytes))


def _models(rows: list[dict[str, Any]], seconds: float) -> Table:
    batches = [point["batch"] for point in rows[0]["batches"]]
    headings = [f"{seconds:g} s of audio", "parameters", "MMAC/s\npaper", "MMAC/s\nall", "RTF"]
    headings += [f"speed\nbatch {batch}" for batch in batches]
    table = _table([*headings, "peak\nMB"])
    for row in rows:
        single: dict[str, Any] = next((point for point in row["batches"] if point["batch"] == 1), {})
        table.add_row(
            row["name"],
            f"{row['parameters']:,}",
            f"{row['paper_macs_per_second'] / 1e6:,.0f}",
            f"{row['honest_macs_per_second'] / 1e6:,.0f}",
            f"{single['rtf']:.3g}" if "rtf" in single else "-",
            *(f"{point['throughput']:.3g}" if "throughput" in point else "-" for point in row["batches"]),
            _megabytes(single["peak_bytes"]) if "peak_bytes" in single else "-",
        )
    return table


def _say_what_is_missing(rows: list[dict[str, Any]], series: list[dict[str, Any]]) -> None:
    untrained = [row["name"] for row in rows if row["weights"] == "random"]
    if untrained:
        typer.echo(f"random weights: {', '.join(untrained)}")
    for row in rows:
        for point in row["batches"]:
            if "skipped" in point:
                typer.echo(f"skipped: {row['name']}, batch {point['batch']}: {point['skipped']}")
        if "skipped" in row.get("stream", {}):
            typer.echo(f"skipped: {row['name']}, stream: {row['stream']['skipped']}")
    for line in series:
        for point in line["points"]:
            if "skipped" in point:
                typer.echo(f"skipped: {line['name']}, {point['seconds']:g} s: {point['skipped']}")


def _stages(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        total = sum(row["stages"].values())
        if total > 0:
            shares = ", ".join(f"{name} {100 * value / total:.0f}%" for name, value in row["stages"].items())
            typer.echo(f"stages of {row['name']}: {shares}")


def _streams(rows: list[dict[str, Any]]) -> Table:
    table = _table(["stream", "latency ms", "hop ms", "p50 ms", "p99 ms", "worst ms", "p99 / hop"])
    for row in rows:
        stream = row["stream"]
        times = [f"{1000 * stream[key]:.3g}" for key in ("latency", "hop", "p50", "p99", "worst")]
        table.add_row(row["name"], *times, f"{100 * stream['p99'] / stream['hop']:.3g}%")
    return table


def _lengths(series: list[dict[str, Any]], title: str, key: str, show: Callable[[float], str]) -> Table:
    lengths = [f"{point['seconds']:g} s" for point in series[0]["points"]]
    table = _table([title, *lengths, "grows as"])
    for line in series:
        exponent = (line["growth"] or {}).get(key)
        cells = [show(point[key]) if key in point else "-" for point in line["points"]]
        table.add_row(line["name"], *cells, f"L^{exponent:.2f}" if exponent is not None else "-")
    return table


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f}"


def _table(headings: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    return table
