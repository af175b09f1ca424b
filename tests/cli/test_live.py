"""`semamba live` on a sound system that is none."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from semamba import audio
from semamba.cli import app
from tests.inference.fake_sound import FakeSound


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSound]:
    fake = FakeSound()
    fake.pause = 0.001
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    yield fake
    torch.set_num_threads(threads)  # the command sets both for its process
    sys.setswitchinterval(interval)


def test_the_list_of_devices(sound: FakeSound) -> None:
    result = CliRunner().invoke(app, ["live", "--list"])
    assert result.exit_code == 0 and "Built-in speakers" in result.stdout and "44100" in result.stdout


def test_a_recording_of_both_sides(sound: FakeSound, tmp_path: Path) -> None:
    words = ["live", "--output", "headset", "--seconds", "0.5", "--slack", "4", "--record", str(tmp_path / "talk")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    assert "USB microphone → Headset, 16000 Hz" in result.stderr and "recorded" in result.stderr
    settings = sound.opened[0].settings
    assert settings["blocksize"] == 128 and settings["channels"] == (1, 2) and settings["device"] == (0, 2)
    noisy, enhanced = (audio.read(tmp_path / f"talk.{side}.wav")[0] for side in ("noisy", "enhanced"))
    assert noisy.shape == enhanced.shape and noisy.shape[1] >= 8000
    assert (enhanced**2).mean() < 0.5 * (noisy**2).mean()  # the noise fell
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 1 and "--overwrite" in again.stderr


def test_ctrl_c_ends_well(sound: FakeSound, tmp_path: Path) -> None:
    import _thread

    def press() -> None:
        until = time.monotonic() + 30
        while len(sound.heard) < 50 and time.monotonic() < until:
            time.sleep(0.01)
        _thread.interrupt_main()

    threading.Thread(target=press, daemon=True).start()
    result = CliRunner().invoke(app, ["live", "--record", str(tmp_path / "talk")])
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.enhanced.wav", "talk.noisy.wav"]
    assert not sound.opened[0].active


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "nobody"], "no input device is called 'nobody'"),
        (["--mix", "3"], "mix must lie between"),
        (["--bandwidth", "wide"], "bandwidth must be"),
        (["--model", "nobody"], "nobody"),
    ],
)
def test_errors_are_one_line(sound: FakeSound, words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["live", "--seconds", "0.1", *words])
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1
    assert not sound.opened


def test_the_picture_shows_what_matters(sound: FakeSound) -> None:
    from rich.console import Console

    from semamba.cli.live import _picture
    from semamba.inference.duplex import Duplex
    from semamba.inference.live import Session, choose, devices
    from semamba.inference.stream import Streamer

    streamer = Streamer(sample_rate=16_000, mode="fixed", block=128)
    duplex = Duplex(streamer)
    session = Session(duplex, choose(devices(), "input"), choose(devices(), "output"), 16_000)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(_picture(duplex, session))
    text = console.export_text()
    for word in ("input", "output", "-120 dB", "attenuation", "32 ms + 0 ms of the devices", "load", "0 blocks late"):
        assert word in text
