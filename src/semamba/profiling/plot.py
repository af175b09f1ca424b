"""Time and memory against the length of the signal, with lines for linear and quadratic growth beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semamba.checkpoint import write_atomic
from semamba.errors import SemambaError

FORMATS = (".png", ".svg", ".pdf")


def prepare(path: Path) -> None:
    """Raises SemambaError when a plot could not be drawn or written there: better said before measuring than after."""
    if path.suffix.lower() not in FORMATS:
        raise SemambaError(f"{path}: a plot ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise SemambaError(f"{path}: there is no folder {path.parent}")
    load_pyplot()


def draw(document: dict[str, Any], path: Path) -> None:
    """Write the picture of `document["lengths"]`; points that were skipped are named in the legend, not drawn."""
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    panels = (("time", "seconds for one pass", 1.0), ("peak_bytes", "peak memory in MB", 1e-6))
    for axis, (key, label, scale) in zip(axes, panels, strict=True):
        for series in document["lengths"]:
            known = [point for point in series["points"] if point.get(key, 0) > 0]
            lengths, values = [point["seconds"] for point in known], [scale * point[key] for point in known]
            axis.plot(lengths, values, marker="o", label=_label(series))
        _guides(axis, [scale * p[key] for s in document["lengths"] for p in s["points"] if p.get(key, 0) > 0], document)
        axis.set(xscale="log", yscale="log", xlabel="seconds of audio", ylabel=label)
        ticks = sorted({point["seconds"] for series in document["lengths"] for point in series["points"]})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    machine = document["machine"]
    place = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    figure.suptitle(f"{place}; torch {machine['torch']}", fontsize="small")
    write_atomic(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=130))
    pyplot.close(figure)


def _guides(axis: Any, values: Sequence[float], document: dict[str, Any]) -> None:
    """Growth by length and by its square, from the lowest point at the shortest length; they measure nothing."""
    lengths = sorted({p["seconds"] for s in document["lengths"] for p in s["points"] if "skipped" not in p})
    if not values or not lengths:
        return
    low, high = min(values), max(values)
    for power, style, name in ((1, ":", "linear"), (2, "--", "quadratic")):
        end = min(lengths[-1], lengths[0] * (2 * high / low) ** (1 / power))  # not far above the data
        heights = [low, low * (end / lengths[0]) ** power]
        axis.plot([lengths[0], end], heights, style, color="grey", lw=1, label=f"{name} growth")


def _label(series: dict[str, Any]) -> str:
    skipped = [point for point in series["points"] if "skipped" in point]
    return f"{series['name']} ({skipped[0]['seconds']:g} s {skipped[0]['skipped']})" if skipped else series["name"]


def load_pyplot() -> Any:
    """matplotlib.pyplot without a window. Raises SemambaError when it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise SemambaError("plots need matplotlib: pip install 'semamba[plot]'") from None
    matplotlib.use("Agg")  # no window is needed
    import matplotlib.pyplot

    return matplotlib.pyplot
