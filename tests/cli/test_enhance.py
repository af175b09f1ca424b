"""`semamba enhance` from the outside."""

from __future__ import annotations

import csv
import io
import os
import resource
import signal
import threading
import time
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
    result = run("in", "missing.wav", "-r", "-o", "out", "--model", model, "--jobs", jobs, "--failures", "failed.csv")
    assert result.exit_code == 1
    failed = csv.DictReader(Path("failed.csv").read_text().splitlines())
    assert [Path(row["source"]).name for row in failed] == ["broken.wav", "empty.wav", "missing.wav"]
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


def test_a_disk_that_fills_up_stops_only_what_does_not_fit(model: str) -> None:
    make("in/big.wav", 20_000)
    make("in/small.wav", 1000)
    content = Path("in/big.wav").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        result = run("in", "-o", "out", "--model", model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1 and "big.wav: cannot write" in result.stderr
    assert os.listdir("out") == ["small.wav"] and Path("in/big.wav").read_bytes() == content


def test_an_error_nobody_foresaw_stops_one_file(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from semamba.inference.engine import Engine

    push = Engine.push

    def fail(self: Engine, block: np.ndarray) -> np.ndarray:
        if block.shape[0] == 2:
            raise KeyError("surprise")
        return push(self, block)

    monkeypatch.setattr(Engine, "push", fail)
    make("b.wav")
    soundfile.write("a.wav", noise(100, 2), 16_000)
    result = run("a.wav", "b.wav", "--model", model)
    assert result.exit_code == 1 and "error: a.wav: KeyError" in result.stderr
    assert sorted(os.listdir()) == ["a.wav", "b.enhanced.wav", "b.wav"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_signals_leave_nothing(
    model: str, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, jobs: str
) -> None:
    from semamba.inference.engine import Engine

    push, sent = Engine.push, threading.Event()

    def send(self: Engine, block: np.ndarray) -> np.ndarray:
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), number)
        time.sleep(0.3)
        return push(self, block)

    monkeypatch.setattr(Engine, "push", send)
    make("in/a.wav", 50_000)
    make("in/b.wav", 50_000)
    assert run("in", "--model", model, "--jobs", jobs).exit_code == code
    assert sent.is_set() and list(Path("in").glob(".semamba*")) == []
    assert all(soundfile.info(path).frames == 50_000 for path in Path("in").iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_interrupt_leaves_nothing(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from semamba.inference.engine import Engine

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "push", interrupt)
    make("a.wav")
    assert run("a.wav", "--model", model).exit_code == 130
    assert os.listdir() == ["a.wav"]


def test_bandwidth_reaches_the_engine(model: str) -> None:
    make("a.wav", 20_000, 48_000)
    for name, extra in (("b.wav", []), ("c.wav", ["--bandwidth", "model"])):
        assert run("a.wav", "-o", name, "--model", model, *extra).exit_code == 0
    above = 9000 * 20_000 // 48_000  # bins from 9 kHz on
    full, low = (np.abs(np.fft.rfft(soundfile.read(name)[0]))[above:].sum() for name in ("b.wav", "c.wav"))
    assert low < 0.1 * full
