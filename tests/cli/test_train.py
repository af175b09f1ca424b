"""`semamba train` end to end on a made-up corpus: it trains, resumes after kill -9, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from semamba.cli import app

RECIPE = """
model: {kind: causal, channels: 8, sub_bands: 8, d_model: 8, blocks: 1, heads: 2, d_state: 4}
mix: {crop_seconds: 0.5}
loss: {metric: 0.05}
discriminator: {channels: 4, jobs: 1}
optimiser: {warmup: 2}
train: {steps: 6, batch_size: 2, log_every: 1, validate_every: 0, checkpoint_minutes: 0, workers: 0, device: cpu}
valid: {jobs: 1}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
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
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, wave, 16000)
        rows.append(f"{name},{split},{kind},s,made-up,CC0-1.0")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


def arguments(corpus: Path, out: Path, *more: str) -> list[str]:
    return ["train", str(corpus / "tiny.yaml"), "--data", str(corpus / "manifest.csv"), "--out", str(out), *more]


def steps(out: Path) -> list[int]:
    lines = (out / "log.jsonl").read_text().splitlines() if (out / "log.jsonl").exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def test_kill_and_resume_by_the_same_command(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    out = tmp_path / "run"
    program = [sys.executable, "-c", "from semamba.cli import main; main()"]
    endless = arguments(corpus, out, "--set", "train.steps=100000")
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*program, *endless], stdout=subprocess.DEVNULL, env=one_thread)
    deadline = time.monotonic() + 60
    while len(steps(out)) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(steps(out)) >= 3
    last = steps(out)[-1] + 4
    shorter = arguments(corpus, out, "--set", f"train.steps={last}", "--export", str(tmp_path / "x"))
    result = CliRunner().invoke(app, shorter)
    assert result.exit_code == 0, result.output
    assert "resumed" in result.output and f"all steps done at step {last}" in result.output
    assert steps(out) == [*range(1, last + 1), last]  # the last validation shares the last step
    assert (tmp_path / "x" / "card.md").is_file()
    assert (tmp_path / "x" / "model.safetensors").is_file()


def test_trains_on_shards_and_on_pairs_past_a_damaged_file(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    rows = [line.replace(",valid,", ",train,") for line in (corpus / "manifest.csv").read_text().splitlines()]
    damaged = ["clean/d.wav,train,paired_clean,s,made-up,CC0", "noisy/d.wav,train,paired_noisy,s,made-up,CC0"]
    for line in damaged:
        (corpus / line.split(",")[0]).write_bytes(b"not audio")
    both = rows + [line for line in (corpus / "manifest.csv").read_text().splitlines() if ",valid," in line]
    (corpus / "pairs.csv").write_text("\n".join(both + damaged) + "\n")
    with pytest.warns(UserWarning, match=r"d\.wav: cannot be read"):
        packed = ["data", "shard", str(corpus / "pairs.csv"), "-o", str(tmp_path / "s"), "--shard-mb", "0.05"]
        assert CliRunner().invoke(app, packed).exit_code == 0
    for manifest in (corpus / "pairs.csv", tmp_path / "s/manifest.csv"):
        out = tmp_path / manifest.parent.name
        command = ["train", str(corpus / "tiny.yaml"), "--data", str(manifest), "--out", str(out / "run")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(app, [*command, "--set", "mix.paired=0.5"])
        assert result.exit_code == 0, result.output
        assert "all steps done at step 6" in result.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "train.batchsize=2"], "did you mean 'batch_size'"),
        (["--set", "valid.split=test"], "test split must not choose"),
        (["--set", "valid.split=nowhere"], "nowhere"),
        (["--set", "mix.paired=0.5"], "no recorded pairs"),
        (["--set", "train.steps=auto"], "--time-budget"),
        (["--set", "model.kind=advnced"], "advnced"),
        (["--time-budget", "soon"], "time budget 'soon'"),
        (["--init", "no-such-model"], "no-such-model"),
        (["--resume", "missing.pt"], "missing.pt"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(corpus: Path, tmp_path: Path, more: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments(corpus, tmp_path / "run", *more))
    assert result.exit_code == 1
    assert message in result.output and result.output.count("\n") == 1, result.output
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_is_said_before_audio_is_read(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semamba.train.sources.open_training", lambda *_: pytest.fail("the audio was read"))
    result = CliRunner().invoke(app, arguments(corpus, tmp_path / "run", "--set", "train.steps=auto"))
    assert result.exit_code == 1 and "needs a time budget" in result.stderr


def test_stopped_before_the_first_validation_nothing_is_exported(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semamba.train.loop import Run

    monkeypatch.setattr(Run, "_tick", lambda self: signal.SIGINT.value)
    result = CliRunner().invoke(app, arguments(corpus, tmp_path / "run", "--export", str(tmp_path / "x")))
    assert result.exit_code == 130 and "state saved" in result.stdout and "error" not in result.stderr
    assert not (tmp_path / "x").exists()


def test_the_process_is_prepared(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("semamba.train.allocator.prepare_cpu", lambda *given: asked.append(given))
    words = ["train", str(corpus / "tiny.yaml"), "--data", "none.csv", "--out", str(tmp_path / "run")]
    CliRunner().invoke(app, [*words, "--set", "train.threads=3", "--set", "train.parallel=2"])
    assert asked == [(3, 2)]


def test_a_slice_ends_the_part(corpus: Path, tmp_path: Path) -> None:
    words = arguments(corpus, tmp_path / "run", "--set", "loss.metric=0", "--slice", "0.000001s")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "slice over, the same command goes on" in result.output, result.output
