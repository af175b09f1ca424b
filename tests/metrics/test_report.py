"""Means, intervals, and the files that a report is written to."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from semamba.errors import SemambaError
from semamba.metrics import report
from semamba.metrics.evaluate import METRICS, Scored

GOOD = dict.fromkeys(METRICS, 2.0)
SCORED = [
    Scored("a.wav", GOOD | {"pesq": 1.0}),
    Scored("b.wav", GOOD | {"pesq": 3.0}),
    Scored("c.wav", {"si_sdr": 2.0}, {"pesq": "PESQ failed: why", "csig": "PESQ failed: why"}),
    Scored("d.wav", problems={"file": "silent"}),
]


def test_interval_is_student_t() -> None:
    found = report.estimate([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5 and found.count == 4
    assert found.half_width == pytest.approx(3.1824 * np.std([1, 2, 3, 4], ddof=1) / 2, abs=1e-9)
    assert math.isnan(report.estimate([1.0]).half_width)
    assert report.estimate([]).count == 0


@pytest.mark.parametrize("degrees", [1, 2, 5, 30, 31, 49, 200])
def test_t_quantile(degrees: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert report._t_975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-4)


def test_what_failed_is_outside_the_mean_and_counted() -> None:
    summary = report.summarise(SCORED)
    assert (summary["pesq"].mean, summary["pesq"].count) == (2.0, 2)
    assert (summary["si_sdr"].mean, summary["si_sdr"].count) == (2.0, 3)
    assert report.problem_lines(SCORED) == ["c.wav (pesq, csig): PESQ failed: why", "d.wav: silent"]


def test_change_is_taken_file_by_file() -> None:
    before = [Scored("a.wav", {"pesq": 1.0}), Scored("b.wav", {"pesq": 2.0}), Scored("c.wav", {"pesq": 9.0})]
    after = [Scored("b.wav", {"pesq": 2.5}), Scored("a.wav", {"pesq": 1.5}), Scored("c.wav", {})]
    change = report.changes(before, after)["pesq"]
    assert (change.mean, change.half_width, change.count) == (0.5, 0.0, 2)
    assert change.text("pesq", sign=True) == "+0.500 ± 0.000"


def test_json_document(tmp_path: Path) -> None:
    report.write_json(tmp_path / "r.json", report.document(SCORED))
    found = json.loads((tmp_path / "r.json").read_text())
    assert list(found["mean"]) == list(METRICS)
    assert found["mean"]["pesq"] == 2.0 and found["count"]["pesq"] == 2
    assert set(found["files"]) == {"a.wav", "b.wav", "c.wav"} and set(found["left_out"]) == {"c.wav", "d.wav"}
    low, high = found["interval"]["pesq"]
    assert (low + high) / 2 == pytest.approx(2.0)
    assert report.document([])["mean"] == {}
    assert report.document([Scored("x", problems={"pesq": "why"})])["mean"]["pesq"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_csv_has_a_line_for_every_file(tmp_path: Path) -> None:
    report.write_csv(tmp_path / "r.csv", {"noisy_": [Scored("a.wav", {"pesq": 1.25})], "": SCORED})
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [row["file"] for row in rows] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert rows[0]["noisy_pesq"] == "1.25" and rows[1]["noisy_pesq"] == "" and rows[1]["pesq"] == "3.0"
    assert rows[3]["left_out"] == "file: silent"


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["causal-small"], ["causal-small"]),
        (["causal-small", "runs/a"], ["causal-small", "a"]),
        (["runs/a/best", "runs/b/best", "runs/b/last"], ["a-best", "b-best", "last"]),
        (["x/a/best", "y/a/best"], ["x-a-best", "y-a-best"]),
        ([], []),
    ],
)
def test_column_names_are_short_and_distinct(models: list[str], names: list[str]) -> None:
    assert report.column_names(models) == names


def test_the_folder_that_we_stand_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert report.column_names(["."]) == ["mine"]


@pytest.mark.parametrize("models", [["a", "a"], ["runs/noisy"]])
def test_column_names_refuse_what_cannot_be_told_apart(models: list[str]) -> None:
    with pytest.raises(SemambaError, match=r"two have the same name|a model named noisy"):
        report.column_names(models)
