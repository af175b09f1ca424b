"""The report of an ablation becomes a picture, whatever is missing from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semamba.profiling import tradeoff


def row(name: str, cost: float, mean: float | None, half_width: float | None) -> dict[str, Any]:
    value = None if mean is None else {"mean": mean, "half_width": half_width, "count": 1}
    return {"name": name, "honest_macs_per_second": cost, "scores": {"pesq": value}}


def run(name: str, values: list[float]) -> dict[str, Any]:
    curve = [{"audio_hours": 0.5 * (i + 1), "pesq": value} for i, value in enumerate(values)]
    loss = [[0.1, 0.5], [0.2, 0.25]][: len(values)]
    return {"variant": name, "scores": {"pesq": values[-1]}, "curve": curve, "loss": loss}


DOCUMENT = {
    "score": "pesq",
    "unprocessed": {"pesq": 1.5},
    "variants": [row("a", 2e8, 2.1, 0.1), row("b", 6e8, 2.0, None), row("unfinished", 1e8, None, None)],
    "runs": [run("a", [1.9, 2.0]), run("a", [2.0, 2.2]), run("b", [2.0])],
}


def test_pictures_are_written_and_equal_reports_give_equal_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / "a.svg", tmp_path / "a.png"]
    tradeoff.draw(DOCUMENT, paths)
    assert [path.read_bytes()[:5] for path in paths] == [b"<?xml", b"\x89PNG\r"]
    before = paths[0].read_bytes()
    tradeoff.draw(DOCUMENT, paths)
    assert paths[0].read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_a_single_validation_is_no_curve(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    widths = []
    for runs in (DOCUMENT["runs"], [run("a", [2.0])]):
        path = tmp_path / "a.png"
        tradeoff.draw({**DOCUMENT, "runs": runs}, [path])
        widths.append(pyplot.imread(path).shape[1])
    assert widths == [12 * 110, 8 * 110]
