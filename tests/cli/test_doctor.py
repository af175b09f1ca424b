"""The self-check finds what is there, and what is broken."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from semamba import ops
from semamba.cli import app, doctor


def findings(name: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine() if finding.name == name]


def test_this_installation_is_healthy() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    report = {row["name"]: row for row in json.loads(result.output)}
    assert [row for row in report.values() if row["status"] == "failed"] == []
    assert result.exit_code == 0
    assert {"semamba", "python", "torch", "kernel", "scan", "audio", "weights", "enhance"} <= report.keys()


def test_the_table_shows_each_finding() -> None:
    output = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"}).output
    assert "kernel" in output and "one second of noise" in output


@pytest.mark.parametrize("error", [float("nan"), 0.01])
def test_a_wrong_kernel_fails_the_check(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ops.selective_scan

    def wrong(*args: Any, **kwargs: Any) -> Any:
        y, state = honest(*args, **kwargs)
        return y + error, state

    monkeypatch.setattr(ops, "selective_scan", wrong)
    assert [finding.status for finding in findings("scan")] == ["failed"]
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_a_broken_part_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def _sound() -> Iterator[doctor.Finding]:
        raise OSError("libsndfile is gone")

    monkeypatch.setattr(doctor, "_sound", _sound)
    report = {finding.name: finding for finding in doctor.examine()}
    assert report["sound"] == doctor.Finding("sound", "failed", "OSError: libsndfile is gone")
    assert "weights" in report


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2", 'pesq>=1; extra == "eval"', 'nowhere-to-be-had; extra == "web"']
    lines.append('semamba[eval]; extra == "web"')
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert doctor.extras() == {"eval": ["pesq"], "web": ["nowhere-to-be-had", "extra eval"]}
    [web] = findings("extra web")
    assert web.status == "note" and "nowhere-to-be-had" in web.text and "semamba[web]" in web.text
