"""Sound devices: which there are, which is meant, and what happens when one goes away."""

from __future__ import annotations

import builtins
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError
from semamba.inference import live
from semamba.inference.duplex import Duplex
from semamba.inference.live import Session, choose, devices
from semamba.inference.stream import Streamer

from .conftest import make_scale
from .fake_sound import FakeSound


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> FakeSound:
    fake = FakeSound()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(live, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(live, "_LOOK_SECONDS", 0.005)
    return fake


def streamer(channels: int = 1) -> Streamer:
    return Streamer(make_scale(True, gain=0.5), 16_000, channels, "fixed", block=128)


def test_devices_are_listed(sound: FakeSound) -> None:
    found = devices()
    assert [device.name for device in found] == [entry["name"] for entry in sound.entries]
    assert [device.default for device in found] == ["input", "output", "", ""]
    assert (found[2].inputs, found[2].outputs, found[2].sample_rate, found[2].system) == (1, 2, 48_000, "Fake")


def test_a_device_is_chosen_by_default_number_and_name(sound: FakeSound) -> None:
    found = devices()
    assert choose(found, "input").index == 0 and choose(found, "output").index == 1
    assert choose(found, "input", "3").name == "Headset of another"
    assert choose(found, "output", "head").index == 2
    assert choose(found, "input", "Headset").index == 2  # the whole name wins over a part of another
    with pytest.raises(SemambaError, match="fits several input devices: 2 .*3 .*number"):
        choose(found, "input", "headset")
    for wanted in ("nothing", "1", "77"):
        with pytest.raises(SemambaError, match=f"no input device is called '{wanted}'.*--list"):
            choose(found, "input", wanted)
    with pytest.raises(SemambaError, match="no output device: connect a loudspeaker"):
        choose(found[:1], "output")


@pytest.mark.parametrize(
    ("error", "message"), [(ImportError, r"pip install 'semamba\[live\]'"), (OSError, "libportaudio2")]
)
def test_what_is_missing_is_named(error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "sounddevice":
            raise error("PortAudio library not found")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SemambaError, match=message):
        devices()


def run(sound: FakeSound, blocks: int, channels: int = 1, target: int = 1, wait: float = 20) -> Session:
    """A session until so many blocks were heard."""
    found = devices()
    with Duplex(streamer(channels), slack=3) as duplex:
        session = Session(duplex, found[2], found[target], 16_000, channels)
        until = time.monotonic() + wait
        session.run(lambda: len(sound.heard) >= blocks or time.monotonic() > until)
    return session


@pytest.mark.parametrize("channels", [1, 2])
def test_sound_goes_through(sound: FakeSound, channels: int) -> None:
    wave = np.sin(np.arange(128) * 2 * np.pi * 10 / 128)
    sound.source = lambda count: np.repeat(wave, count // 128)
    session = run(sound, 60, channels)
    settings = sound.opened[0].settings
    assert settings["device"] == (2, 1) and settings["channels"] == (channels, 2) and settings["blocksize"] == 128
    heard = np.concatenate(sound.heard)
    assert np.isfinite(heard).all() and np.array_equal(heard[:, 0], heard[:, 1])
    assert np.abs(heard[-10 * 128 :]).max() == pytest.approx(0.5, abs=0.02)
    assert session.device_latency == pytest.approx(0.03) and session.glitches == 0 and not sound.opened[0].active


def test_what_the_sound_system_reports_is_counted(sound: FakeSound) -> None:
    sound.status = "output underflow"  # type: ignore[assignment]
    assert run(sound, 20).glitches >= 20


def test_a_device_that_goes_away_comes_back(sound: FakeSound) -> None:
    """First it is unplugged, then opening fails twice, then it is there again, under another number."""
    sound.unplug_after = 10
    found, said = devices(), []
    with Duplex(streamer(), slack=3) as duplex:
        session = Session(duplex, found[2], found[1], 16_000)

        def look() -> None:
            if session.trouble and session.trouble not in said:
                said.append(session.trouble)
                if len(said) == 1:
                    sound.refusals += ["Device unavailable", "Device unavailable"]
                    sound.entries.insert(0, sound.entries.pop(2))

        until = time.monotonic() + 30
        session.run(lambda: len(sound.heard) >= 30 or time.monotonic() > until, look)
    assert "'Headset' or 'Built-in speakers' is gone; trying again" in said[0]
    assert "Device unavailable; trying again" in said[1]
    assert len(sound.heard) >= 30 and session.trouble == "" and sound.opened[-1].settings["device"] == (0, 2)


def test_a_device_that_falls_silent_counts_as_gone(sound: FakeSound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_SILENT_SECONDS", 0.2)
    sound.pause = 0.5
    run(sound, 3, wait=5)
    assert len(sound.opened) >= 2


def test_a_device_that_never_opens_is_an_error(sound: FakeSound) -> None:
    sound.refusals = ["Invalid sample rate"]
    with pytest.raises(SemambaError, match="'Headset' and 'Built-in speakers' at 16000 Hz: Invalid sample rate"):
        run(sound, 1)


def test_an_error_of_the_model_ends_the_session(sound: FakeSound) -> None:
    found = devices()
    with Duplex(streamer()) as duplex:
        duplex.error = RuntimeError("out of order")
        with pytest.raises(RuntimeError, match="out of order"):
            Session(duplex, found[2], found[1], 16_000).run(lambda: False)


def _pulse(*words: str) -> str:
    result = subprocess.run(["pactl", *words], capture_output=True, text=True, timeout=10)
    if result.returncode:
        pytest.skip(f"no PulseAudio or PipeWire server answers: {result.stderr.strip()}")
    return result.stdout.strip()


def test_a_loop_through_null_sinks(tmp_path: Path) -> None:
    """A tone is played into one null sink; the command hears its monitor and plays into another, which is recorded."""
    if not all(map(shutil.which, ("pactl", "paplay", "parecord"))):
        pytest.skip("needs pactl, paplay and parecord")
    _pulse("info")
    modules = [_pulse("load-module", "module-null-sink", f"sink_name=semamba_{side}") for side in ("in", "out")]
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(6 * 16_000) / 16_000)).astype(np.float32)
    audio.write(tmp_path / "tone.wav", tone, 16_000)
    helpers = []
    try:
        environment = {**os.environ, "PULSE_SOURCE": "semamba_in.monitor", "PULSE_SINK": "semamba_out"}
        command = [sys.executable, "-m", "semamba", "live", "--input", "pulse", "--output", "pulse"]
        command += ["--rate", "16000", "--seconds", "3", "--record", str(tmp_path / "talk"), "--mix", "0"]
        helpers.append(subprocess.Popen(["paplay", "-d", "semamba_in", tmp_path / "tone.wav"]))
        record = ["parecord", "-d", "semamba_out.monitor", "--rate=16000", "--channels=1", tmp_path / "heard.wav"]
        helpers.append(subprocess.Popen(record))
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    finally:
        for helper in helpers:
            helper.terminate()
            helper.wait()
        for module in modules:
            _pulse("unload-module", module)
    if "no input device is called 'pulse'" in result.stderr:
        pytest.skip("PortAudio has no way to PulseAudio here")
    assert result.returncode == 0, result.stderr
    for name in ("talk.noisy.wav", "heard.wav"):
        wave, _ = audio.read(tmp_path / name, 16_000)
        assert np.abs(wave).max() == pytest.approx(0.3, abs=0.05), name
