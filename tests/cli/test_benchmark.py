"""`semamba benchmark` end to end on small sets."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from semamba import audio
from semamba.cli import app
from tests.evaluation.conftest import RATE, voice

pytest.importorskip("pesq")
pytest.importorskip("pystoi")


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    (tmp_path / "speech").mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        wave = voice(1.6, index + 1)
        wave = 2 * wave + 1e-4 * rng.standard_normal(wave.size, np.float32)
        audio.write(tmp_path / f"speech/u{index}.wav", wave[None], RATE)
    return tmp_path / "speech"


def test_a_sweep(speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["benchmark", "causal-small", "--sweep", "snr=0,10", "--speech", str(speech), "--count", "2",
                 "-o", str(tmp_path / "out"), "-j", "1", "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["semamba", *arguments])
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "snr 10 dB" in result.stdout and "PESQ-WB" in result.stdout and "causal-small" in result.stdout
    record = json.loads((tmp_path / "out/snr_10_dB.json").read_text())
    name = next(name for name in record["factors"] if name.startswith("snr=10/hiss/"))
    assert re.fullmatch(r"snr=10/hiss/([01])/u\1", name) and record["factors"][name] == {"snr": 10, "noise": "hiss"}
    assert record["settings"]["command"].startswith("semamba benchmark causal-small --sweep snr=0,10")
    low, high = (entry["systems"]["noisy"]["mean"]["si_sdr"] for entry in
                 json.loads((tmp_path / "out/matrix.json").read_text())["sets"])  # fmt: skip
    assert high > low + 8
    again = CliRunner().invoke(app, arguments)
    assert "8 of the scores were there before" in " ".join(again.stderr.split())


@pytest.mark.parametrize("arguments", [[], ["--sweep", "snr"], ["--set", "a=b", "--transcripts", "x.csv"]])
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["benchmark", "causal-small", "-o", str(tmp_path), *arguments]).exit_code == 2


def test_a_missing_model_is_one_line(speech: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["benchmark", "nothing", "--sweep", "snr", "--speech", str(speech), "-o", str(tmp_path / "out")]
    )
    assert result.exit_code == 1 and "error: model 'nothing'" in result.stderr
