"""The report of an ablation, drawn: quality against cost, and quality against how much was heard in training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from semamba.checkpoint import write_atomic
from semamba.metrics.report import LABELS
from semamba.profiling.plot import load_pyplot

MARKERS = "osD^vPX*<>"


def draw(document: Mapping[str, Any], paths: Iterable[Path]) -> None:
    """Write the picture to each path (.svg, .png, .pdf). `document` is what `train.ablation_report.document` makes."""
    pyplot = load_pyplot()
    score = document["score"]
    several = any(len(run["curve"]) > 1 for run in document["runs"])  # validations; of one there is no curve
    figure, panels = pyplot.subplots(1, 2 + several, figsize=(8 + 4 * several, 4.6), layout="constrained")
    costs, losses, curves = panels[0], panels[-1], panels[1] if several else None
    rows = [row for row in document["variants"] if row["scores"][score] is not None]
    for index, row in enumerate(rows):
        runs = [run for run in document["runs"] if run["variant"] == row["name"] and score in run["scores"]]
        style = {"color": f"C{index % 10}", "marker": MARKERS[index % len(MARKERS)], "label": row["name"]}
        _point(costs, row, runs, score, style)
        if curves is not None:
            _curve(curves, runs, score, style)
        _loss(losses, runs, style["color"])
    if score in document["unprocessed"]:
        for axis in panels[:-1]:
            axis.axhline(document["unprocessed"][score], color="grey", ls=":", lw=1, label="unprocessed")
    costs.set(xscale="log", xlabel="million MAC for a second of audio, all counted", ylabel=LABELS[score])
    costs.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    costs.xaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}")
    costs.tick_params(axis="x", which="both", labelsize="small", labelrotation=45)
    costs.set_title("at the end, with intervals over seeds", fontsize="small")
    if curves is not None:
        curves.sharey(costs)
        curves.set(xlabel="hours of mixtures heard")
        curves.set_title("on the way there, mean and each seed", fontsize="small")
    losses.set(xlabel="hours of mixtures heard", ylabel="training loss", yscale="log")
    losses.set_title("training loss, smoothed, mean over seeds", fontsize="small")
    for axis in panels:
        axis.grid(alpha=0.3, which="both")
    figure.legend(*costs.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    with pyplot.rc_context({"svg.hashsalt": "semamba"}):  # equal reports give equal files
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            write_atomic(path, partial(figure.savefig, format=path.suffix[1:], dpi=110, metadata=metadata))
    pyplot.close(figure)


def _point(axis: Any, row: Mapping[str, Any], runs: list[dict[str, Any]], score: str, style: dict[str, Any]) -> None:
    cost, value = row["honest_macs_per_second"] / 1e6, row["scores"][score]
    axis.errorbar([cost], [value["mean"]], yerr=[value["half_width"] or 0.0], capsize=3, ls="none", **style)
    axis.plot([cost] * len(runs), [run["scores"][score] for run in runs], ".", color=style["color"], alpha=0.4, ms=4)


def _curve(axis: Any, runs: list[dict[str, Any]], score: str, style: dict[str, Any]) -> None:
    heard: dict[float, list[float]] = {}
    for run in runs:
        points = [(point["audio_hours"], point.get(score, math.nan)) for point in run["curve"]]
        axis.plot(*zip(*points, strict=True), color=style["color"], lw=0.7, alpha=0.35)
        for hours, value in points:
            heard.setdefault(hours, []).append(value)
    complete = sorted(hours for hours, values in heard.items() if len(values) == len(runs))
    axis.plot(complete, [fmean(heard[hours]) for hours in complete], lw=1.8, ms=4, **style)


def _loss(axis: Any, runs: list[dict[str, Any]], color: str) -> None:
    """The mean over seeds at the steps that all of them logged, each a mean over the last tenth of the lines."""
    lines = [dict(map(tuple, run["loss"])) for run in runs]
    hours = sorted(set.intersection(*map(set, lines))) if lines else []
    mean = [fmean(line[hour] for line in lines) for hour in hours]
    axis.plot(hours, _smooth(mean, max(len(mean) // 10, 1)), color=color, lw=1.4)


def _smooth(values: Sequence[float], width: int) -> list[float]:
    return [fmean(values[max(i - width + 1, 0) : i + 1]) for i in range(len(values))]
