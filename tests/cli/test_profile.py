"""`semamba profile` as a person calls it; what it measures is replaced by arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semamba.cli import app
from semamba.profiling import runner, survey
from semamba.profiling.spec import Measured, Skipped, Spec


@pytest.fixture(autouse=True)
def arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and memory by rule; batch 8 and signals above 20 s are over a limit."""

    def measure(spec: Spec, limits: runner.Limits) -> Measured | Skipped:
        if spec.batch == 8 or spec.seconds > 20:
            return Skipped(f"takes over {limits.seconds:g} s")
        time = 0.02 * spec.seconds * spec.batch
        stages = {"encoder": 0.25 * time, "other": 0.75 * time} if spec.stages else {}
        hop = 0.016 if spec.work == "stream" else 0.0
        return Measured(time, time, time, time, 3, int(2e6 * spec.seconds), 10**8, stages, hop)

    honest = survey.run
    monkeypatch.setattr(survey, "run", lambda what, say: honest(what, say, measure))


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["profile", *arguments], env={"COLUMNS": "100"})


def test_one_model_without_a_comparison() -> None:
    result = call("basic-lstm-causal", "--batch", "1,8", "--stream")
    assert result.exit_code == 0, result.output
    for text in ("3,778,433", "0.02", "encoder 25%, other 75%", "random weights: basic-lstm-causal", "p99 / hop"):
        assert text in result.output
    assert "skipped: basic-lstm-causal, batch 8: takes over 60 s" in result.output
    assert "grows as" not in result.output


def test_lengths_json_and_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, picture = tmp_path / "cost.json", tmp_path / "cost.svg"
    result = call("core-mamba", "core-lstm", "--lengths", "5,10,30,60", "--json", str(path), "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert "L^1.00" in result.output and "skipped: core-lstm, 30 s: takes over 60 s" in result.output
    document = json.loads(path.read_text())
    assert [series["name"] for series in document["lengths"]] == ["core-mamba", "core-lstm"]
    assert "time" not in document["lengths"][0]["points"][-1]
    assert picture.stat().st_size > 1000


def test_without_names_everything_is_measured() -> None:
    result = call("--seconds", "1", "--batch", "1")
    assert result.exit_code == 0, result.output
    assert "advanced-conformer" in result.output and "core-conformer" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--batch", "1.5"], 2, "whole numbers"),
        (["--lengths", "1,-2"], 2, "positive"),
        (["--device", "tpu"], 2, "cpu, cuda, auto"),
        (["nobody"], 1, "not known"),
        (["causal-small", "--plot", "cost.gif"], 1, ".png"),
        (["causal-small", "--json", "nowhere/at/all.json"], 1, "no folder"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], code: int, text: str) -> None:
    result = call(*arguments)
    assert result.exit_code == code and text in result.output
