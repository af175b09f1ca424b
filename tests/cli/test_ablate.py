"""`semamba ablate` as a person calls it, with real trainings of a few steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from semamba.cli import app
from semamba.profiling import runner
from semamba.profiling.spec import Measured, Spec
from semamba.train import ablation_runs
from tests.train.test_ablation import FAKE, write

BASE = """
model: {kind: causal, channels: 8, sub_bands: 8, d_model: 8, blocks: 1, heads: 2, d_state: 4}
mix: {crop_seconds: 0.5}
train: {batch_size: 2, log_every: 1, validate_every: 2, workers: 0, device: cpu}
valid: {jobs: 1}
"""
ABLATION = """
base: base.yaml
budget: {steps: 3}
seeds: [0]
variants: {one: {}, two: {model.blocks: 2}}
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng, seconds = np.random.default_rng(0), np.arange(32000) / 16000
    voice = 0.1 * np.sign(np.sin(2 * np.pi * 140 * seconds)) * (np.sin(2 * np.pi * 2 * seconds) > -0.3)
    noise = 0.03 * rng.standard_normal(32000)
    rows = ["path,split,kind,speaker,source,licence"]
    for name, kind, split, wave in (
        ("a.wav", "speech", "train", voice),
        ("n.wav", "noise", "train", noise),
        ("clean/p.wav", "paired_clean", "valid", voice),
        ("noisy/p.wav", "paired_noisy", "valid", voice + noise),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, wave, 16000)
        rows.append(f"{name},{split},{kind},s,made-up,CC0-1.0")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "ablation.yaml").write_text(ABLATION)
    return tmp_path


def call(corpus: Path, *more: str) -> Any:
    arguments = ["ablate", str(corpus / "ablation.yaml"), "--out", str(corpus / "out"), *more]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def test_from_a_file_to_a_table_and_a_picture(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("pesq", "pystoi", "matplotlib"):
        pytest.importorskip(library)

    def measure(spec: Spec, limits: runner.Limits) -> Measured:
        assert (Path(spec.subject) / "model.safetensors").is_file() and spec.threads == 1
        return Measured(0.5, 0.5, 0.5, 0.5, 3, 10**6, 10**7)

    monkeypatch.setattr(runner, "measure", measure)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = ("--data", str(corpus / "manifest.csv"))
    result = call(corpus, *data)
    assert result.exit_code == 0, result.output
    out = corpus / "out"
    assert {path.suffix for path in out.glob("report.*")} == {".md", ".csv", ".json", ".svg", ".png"}
    document = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in document["variants"]] == ["one", "two"]
    assert all(row["rtf"] == 0.05 and row["steps"]["mean"] == 3 for row in document["variants"])
    assert [point["step"] for point in document["runs"][0]["curve"]] == [2, 3]
    assert "| two |" in result.output and "Change against `one`" in result.output
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-0/state.pt")}
    again = call(corpus, *data)
    assert again.exit_code == 0 and "2 of 2 runs are finished already" in again.output
    assert len(before) == 2 and before == {path: path.stat().st_mtime_ns for path in before}


def test_a_dry_run_lists_and_writes_nothing(corpus: Path) -> None:
    result = call(corpus, "--dry-run", "--set", "train.batch_size=4")
    assert result.exit_code == 0, result.output
    assert "one/seed-0" in result.output and "two/seed-0" in result.output and "new" in result.output
    assert not (corpus / "out").exists()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ([], 2, "--data"),
        (["--data", "missing.csv"], 1, "missing.csv"),
        (["--report"], 1, "no finished run"),
        (["--dry-run", "--set", "loss.fase=1"], 1, "did you mean 'phase'"),
    ],
)
def test_mistakes_leave_no_folder(corpus: Path, more: list[str], code: int, message: str) -> None:
    result = call(corpus, *more)
    assert result.exit_code == code and message in result.output, result.output
    assert not (corpus / "out").exists()


def test_failed_runs_end_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(ablation_runs, "PROGRAM", (sys.executable, str(tmp_path / "fake.py")))
    path = write(tmp_path, seeds=[0], variants={"good": {}, "bad": {"optimiser.lr": 2.0}})
    (tmp_path / "m.csv").write_text("path,split,kind\na.wav,train,speech\n")
    words = ["ablate", str(path), "--data", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out"), "--no-speed"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "1 runs failed" in result.stderr, result.output
    assert "bad/seed-0: loss or gradient was not finite" in result.stderr and (tmp_path / "out/report.md").exists()
