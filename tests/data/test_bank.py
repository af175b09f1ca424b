"""The bank: everything in one array, broken files left out by name, the cache equal to the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba.data.bank import SpeechBank
from semamba.data.manifest import Manifest
from semamba.data.reading import read_int16
from semamba.errors import SemambaError


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
