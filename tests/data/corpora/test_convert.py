"""Conversion: one resampler, exact copies where nothing changes, and every fault of a file named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba.data.corpora.convert import RATE, RELATED, Settings, convert, find_lag
from semamba.data.corpora.layout import PAIR, Unit
from semamba.data.reading import read_float, read_int16
from tests.data.corpora.conftest import Write, noisy, voice

PLAIN, ALIGN = Settings(), Settings(align=True)


def test_a_48_khz_file_comes_out_at_16_khz_on_time_and_without_aliases(write: Write, tmp_path: Path) -> None:
    time = np.arange(48000) / 48000
    for hertz, kept in ((1000, 1.0), (7200, 1.0), (8600, 0.0)):
        path = write(f"{hertz}.wav", 0.5 * np.sin(2 * np.pi * hertz * time), 48000)
        record = convert(Unit("train", "speech", str(hertz), path, speaker="s"), tmp_path, PLAIN)
        samples, rate = soundfile.read(tmp_path / f"train/speech/s/{hertz}.flac")
        assert (rate, len(samples), record.seconds, record.problem) == (RATE, 16000, 1.0, "")
        wanted = kept * 0.5 * np.sin(2 * np.pi * hertz * np.arange(16000) / RATE)
        assert np.abs(samples - wanted)[800:-800].max() < 2e-4


def test_16_khz_material_is_linked_or_copied_bit_for_bit(write: Write, tmp_path: Path) -> None:
    path = write("a.wav", voice(1))
    unit = Unit("train", "noise", "a", path)
    assert convert(unit, tmp_path, PLAIN).linked and not (tmp_path / "train").exists()
    assert not convert(unit, tmp_path, Settings(copy=True)).linked
    copied, _ = soundfile.read(tmp_path / "train/noise/a.flac", dtype="int16")
    assert np.array_equal(copied, soundfile.read(path, dtype="int16")[0])


def test_channels_are_averaged_but_of_a_room_the_first_is_taken(write: Write, tmp_path: Path) -> None:
    stereo = np.stack([voice(1), voice(2)], axis=1)
    path = write("s.wav", stereo)
    for kind, wanted in (("noise", stereo.mean(axis=1)), ("rir", stereo[:, 0])):
        convert(Unit("train", kind, "s", path), tmp_path, PLAIN)
        samples, _ = soundfile.read(tmp_path / f"train/{kind}/s.flac")
        assert np.abs(samples - wanted).max() < 1e-4


@pytest.mark.parametrize("delay", [0, 3, 400, -250])
def test_lag_is_found_in_noise(delay: int) -> None:
    rng = np.random.default_rng(0)
    long = voice(5, 2.0)
    clean, late = long[1000:20000], long[1000 - delay : 20000 - delay]
    rumble = np.cumsum(rng.standard_normal(len(late))) * 0.01  # low and far louder than the voice
    lag, peak = find_lag(clean, late + rumble + 0.05 * rng.standard_normal(len(late)))
    assert lag == delay and peak > RELATED


def pair(write: Write, clean: np.ndarray, other: np.ndarray, split: str = "train") -> Unit:
    return Unit(split, PAIR, "p", write("clean/p.wav", clean), write("noisy/p.wav", other))


def test_a_late_recording_is_refused_kept_in_a_test_or_aligned(write: Write, tmp_path: Path) -> None:
    long = voice(5, 1.0)
    clean, late = long[800:], noisy(long[:-800])
    unit = pair(write, clean, late)
    refused = convert(unit, tmp_path, PLAIN)
    assert "50.0 ms behind" in refused.problem and "--align" in refused.problem and not list(tmp_path.glob("train"))
    assert "kept" in convert(pair(write, clean, late, "test"), tmp_path, PLAIN).note
    record = convert(unit, tmp_path, ALIGN)
    assert not record.problem and "taken out" in record.note
    sides = [soundfile.read(tmp_path / target)[0] for target in unit.targets]
    assert len(sides[0]) == len(sides[1]) and find_lag(*sides)[0] == 0
    assert np.abs(sides[1] - sides[0]).max() < 0.3


@pytest.mark.parametrize(
    ("clean", "other", "message"),
    [
        (voice(1, 2.5), voice(2, 2.5), "nothing in common"),
        (voice(1), -noisy(voice(1)), "polarity"),
        (voice(1), noisy(voice(1))[:-2000], "0.47 s, but its clean partner has 0.60 s"),
        (np.zeros(16000), voice(1, 1.0), "clean/p.wav: silent"),
        (voice(1)[:500], voice(1)[:500], "only 31 ms"),
    ],
)
def test_what_is_wrong_with_a_pair_is_named(
    write: Write, tmp_path: Path, clean: np.ndarray, other: np.ndarray, message: str
) -> None:
    record = convert(pair(write, clean, other), tmp_path / "out", PLAIN)
    assert message in record.problem and not (tmp_path / "out").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, content, message in (("x.wav", b"RIFF no audio", "not a readable"), ("e.wav", b"", "empty")):
        (tmp_path / name).write_bytes(content)
        record = convert(Unit("train", "speech", "x", tmp_path / name), tmp_path, PLAIN)
        assert name in record.problem and message in record.problem
    assert "gone.wav" in convert(Unit("train", "speech", "x", tmp_path / "gone.wav"), tmp_path, PLAIN).problem


def test_integers_and_floats_are_the_same_samples(write: Write) -> None:
    path = write("a.wav", np.stack([voice(1), voice(2)], axis=1), 44100)
    exact = read_float(path, RATE) * 32768
    assert np.abs(read_int16(path, RATE) - exact).max() <= 0.51 + 1e-3
    assert np.array_equal(read_int16(path, RATE), read_int16(path, RATE, path.read_bytes()))
