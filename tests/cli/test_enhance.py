"""`semamba enhance` from the outside."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from typer.testing import CliRunner, Result

from semamba import checkpoint
from semamba.cli.enhance import enhance
from semamba.models.causal import CausalConfig, CausalModel

app = typer.Typer()
app.command()(enhance)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    config = CausalConfig(channels=8, sub_bands=6, d_model=8, blocks=1, layers=1, d_state=4, heads=2)
    checkpoint.save(folder, CausalModel(config), {})
    return str(folder)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(frames: int = 8000, channels: int = 1) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((frames, channels)) * 0.1).astype(np.float32)


def make(name: str, frames: int = 8000, rate: int = 16_000) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(frames), rate)
    return path


def run(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=given)


def test_one_file_gets_a_neighbour_and_a_summary(model: str) -> None:
    make("talk.wav", 48_000, 48_000)
    result = run("talk.wav", "--model", model)
    assert result.exit_code == 0 and result.stdout == ""
    assert "talk.enhanced.wav" in result.stderr and "48000 Hz" in result.stderr
    assert soundfile.info("talk.enhanced.wav").frames == 48_000
    assert run("talk.wav", "--model", model).exit_code == 1
    assert run("talk.wav", "--model", model, "--overwrite", "-q").stderr == ""


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_folder_to_folder_with_bad_files_among_good(model: str, jobs: str) -> None:
    for name in ("in/a.wav", "in/b.flac", "in/deep/c.wav"):
        make(name)
    Path("in/broken.wav").write_bytes(b"not a sound")
    Path("in/empty.wav").write_bytes(b"")
    result = run("in", "missing.wav", "-r", "-o", "out", "--model", model, "--jobs", jobs)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert sorted(line.split(":")[1].strip() for line in errors) == ["in/broken.wav", "in/empty.wav", "missing.wav"]
    assert "3 enhanced, 3 failed" in result.stderr
    made = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file())
    assert made == ["a.wav", "b.flac", os.path.join("deep", "c.wav")]
    assert Path("in/broken.wav").read_bytes() == b"not a sound"


def test_pipe(model: str) -> None:
    data = io.BytesIO()
    soundfile.write(data, noise(12_345, 2), 44_100, format="WAV", subtype="PCM_24")
    result = run("-", "--model", model, given=data.getvalue())
    assert result.exit_code == 0
    info = soundfile.info(io.BytesIO(result.stdout_bytes))
    assert (info.frames, info.channels, info.samplerate, info.subtype) == (12_345, 2, 44_100, "PCM_24")
    make("a.flac")
    assert soundfile.info(io.BytesIO(run("a.flac", "-o", "-", "--model", model).stdout_bytes)).format == "FLAC"
    assert run("-", "-o", "b.wav", "--model", model, given=data.getvalue()).exit_code == 0
    assert soundfile.info("b.wav").frames == 12_345


def test_pipe_that_carries_no_sound(model: str) -> None:
    for given in (b"", b"words"):
        result = run("-", "--model", model, given=given)
        assert result.exit_code != 0 and result.stdout_bytes == b""
        assert "standard input" in str(result.exception)


def test_options_reach_the_engine(model: str) -> None:
    make("a.wav", 20_000)
    outputs = []
    for index, extra in enumerate(([], ["--mix", "0"], ["--attenuation-limit", "0"], ["--pcs"], ["--mix", "0.5"])):
        assert run("a.wav", "-o", f"{index}.wav", "--model", model, *extra).exit_code == 0
        outputs.append(Path(f"{index}.wav").read_bytes())
    assert outputs[1] == outputs[2] == Path("a.wav").read_bytes()
    assert len(set(outputs)) == 4


@pytest.mark.parametrize(
    "extra", [["--mix", "2"], ["--bandwidth", "wide"], ["--model", "no-such-model"], ["--device", "nowhere"]]
)
def test_bad_options_leave_no_output(model: str, extra: list[str]) -> None:
    make("a.wav")
    result = run("a.wav", *(["--model", model] if "--model" not in extra else []), *extra)
    assert result.exit_code != 0 and os.listdir() == ["a.wav"]


def test_interrupt_leaves_nothing(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from semamba.inference.engine import Engine

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "push", interrupt)
    make("a.wav")
    assert run("a.wav", "--model", model).exit_code == 130
    assert os.listdir() == ["a.wav"]
