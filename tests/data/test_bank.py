"""The bank: everything in one array, broken files left out by name, the cache equal to the files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba.data.bank import SpeechBank, Track
from semamba.data.device import DeviceMixer
from semamba.data.manifest import Manifest
from semamba.data.mixing import PROBABILITIES, MixConfig, Mixer
from semamba.data.reading import read_int16
from semamba.errors import SemambaError
from tests.data.test_recorded import write_pairs


def hosted(bank: SpeechBank, mix: MixConfig) -> list[np.ndarray]:
    mixer = Mixer(bank, mix)
    return [mixer.sample(np.random.default_rng(seed))[0] for seed in range(8)]


def on_device(bank: SpeechBank, mix: MixConfig) -> list[np.ndarray]:
    return list(DeviceMixer(bank, mix).batch(0, 8)[0].numpy())


def test_voices_are_adjacent_and_cover_their_files(bank: SpeechBank) -> None:
    assert set(bank.voices) == {"v0", "v1", "v2"}
    assert all(stop - start == 6 * 16000 for start, stop in bank.voices.values())
    assert (len(bank.noises), len(bank.rirs), bank.audio.dtype) == (3, 1, np.int16)
    assert bank.seconds["speech"] == pytest.approx(18)


def test_activity_tells_speech_from_pauses(bank: SpeechBank) -> None:
    start, stop = bank.voices["v0"]
    assert 0.4 < bank.activity(start, stop) < 0.9
    loud = [bank.activity(at, at + 1600) for at in range(start, start + 16000, 1600)]
    assert min(loud) < 0.2 and max(loud) == 1.0
    assert bank.activity(*bank.noises[0]) == 0


def test_noises_are_drawn_by_their_weights(bank: SpeechBank) -> None:
    assert np.allclose(bank.noise_chances({}), [1 / 3] * 3)
    assert np.allclose(bank.noise_chances({"noise/0*": 0.5, "*/[02].flac": 0.0}), [1 / 3, 2 / 3, 0])  # the first counts
    assert np.allclose(bank.noise_chances({"*train*": 0.0, "*.wav": 0.0}), [1 / 3] * 3)  # neither folder nor name
    with pytest.raises(SemambaError, match="noise_weights"):
        bank.noise_chances({"*": 0.0})
    assert not len(SpeechBank(bank.audio, bank.tracks[-1:]).noise_chances({"*": 0.0}))


@pytest.mark.parametrize("mix", [hosted, on_device])
def test_mixing_keeps_to_the_weights(mix: Callable[[SpeechBank, MixConfig], list[np.ndarray]]) -> None:
    time = np.arange(32000) / 16000
    tones = [(3000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16) for hertz in (500, 3000)]
    tracks = [
        Track("noise", f"n/{name}.flac", "", 32000 * i, 32000 * (i + 1)) for i, name in enumerate(("low", "high"))
    ]
    tracks.append(Track("speech", "s.flac", "s", 0, 64000))
    bank = SpeechBank(np.concatenate(tones), tracks)
    silent = replace(MixConfig(crop_seconds=0.5), **{**dict.fromkeys(PROBABILITIES, 0.0), "noise_only": 1.0})
    for noisy in mix(bank, replace(silent, noise_weights={"*high*": 0.0})):
        power = np.abs(np.fft.rfft(noisy)) ** 2
        assert power[:500].sum() > 0.9 * power.sum()  # below 1 kHz


def test_a_broken_file_is_named_once_and_left_out(tmp_path: Path) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write(tmp_path / "good.wav", samples, 16000)
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.warns(UserWarning) as caught:
        bank = SpeechBank.load(Manifest.from_folders(clean=tmp_path))
    assert sorted(str(item.message).split(": ")[0].rsplit("/")[-1] for item in caught) == ["bad.wav", "empty.wav"]
    assert len(bank.tracks) == 1


def test_no_speech_is_an_error(corpus: Path) -> None:
    with pytest.raises(SemambaError, match=r"no readable speech.*'other'"):
        SpeechBank.load(Manifest.read(corpus), split="other")


def test_cache_gives_the_same_bank_and_notices_a_change(corpus: Path, bank: SpeechBank, tmp_path: Path) -> None:
    manifest = Manifest.read(corpus)
    for _ in range(2):
        cached = SpeechBank.load(manifest, cache=tmp_path)
        assert np.array_equal(cached.audio, bank.audio) and cached.tracks == bank.tracks
    assert len(list(tmp_path.glob("*.npy"))) == 1 and not list(tmp_path.glob("*.tmp"))
    SpeechBank.load(manifest, split="valid", cache=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_other_rates_and_channels_become_mono_at_the_bank_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full((4800, 2), 0.25), 48000)
    samples = read_int16(tmp_path / "a.wav", 16000)
    assert samples.shape == (1600,) and samples.dtype == np.int16
    assert abs(int(samples[800]) - 8192) < 4


def test_the_cache_notices_that_a_file_changed(tmp_path: Path) -> None:
    manifest = Manifest.read(write_pairs(tmp_path / "files"))
    before = SpeechBank.load(manifest, cache=tmp_path / "cache")
    path = tmp_path / "files/noisy/1.wav"
    soundfile.write(path, 0.5 * soundfile.read(path)[0], 16000, subtype="PCM_16")
    os.utime(path, ns=(1, 1))
    after = SpeechBank.load(manifest, cache=tmp_path / "cache")
    assert not np.array_equal(before.audio, after.audio) and len(list((tmp_path / "cache").glob("*.npy"))) == 2
