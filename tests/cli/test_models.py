"""`semamba models` and `semamba convert` as a person or a program calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semamba.cli import models as commands
from semamba.models.presets import PRESETS


def test_the_json_has_a_row_for_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    commands.models(as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(PRESETS) <= set(rows)
    advanced = rows["advanced-mamba"]
    assert advanced["parameters"] == 2_258_769
    assert round(advanced["paper_macs"] / 1e9, 3) == 65.457
    assert advanced["latency_ms"] is None and not advanced["causal"]
    assert rows["causal-small"]["default"] and rows["causal-small"]["latency_ms"] == 32
    assert sum(row["default"] for row in rows.values()) == 1


def test_the_table_fits_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands.models()
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= 82
    for name in ("basic-transformer-causal", "2,258,769", "65.457", "88.100", "32 ms", "weights"):
        assert name in text


def test_a_shipped_model_is_described_by_its_own_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from semamba import checkpoint
    from semamba.models import build
    from semamba.models.causal import CausalConfig

    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    checkpoint.save(tmp_path / "causal-tiny", build(CausalConfig(channels=16, d_model=16, blocks=1)), {})
    assert commands.names()[-1] == "causal-tiny"
    row = commands.describe("causal-tiny")
    assert row["weights"] and row["parameters"] < 64_000
    assert not commands.describe("causal-small")["weights"]
