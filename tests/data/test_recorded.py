"""Recorded pairs in training: aligned crops, the share of a batch, remix, gain, and pairs that are not right."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba.data.bank import SpeechBank
from semamba.data.dataset import MixDataset
from semamba.data.device import DeviceMixer
from semamba.data.manifest import Manifest
from semamba.data.mixing import MixConfig
from semamba.data.recorded import RecordedPairs
from semamba.errors import SemambaError
from tests.data.conftest import RATE, speech_like, write_manifest

MIX = MixConfig(crop_seconds=0.5)


def write_pairs(root: Path, count: int = 3, seconds: float = 2.0, speech: bool = False) -> Path:
    """A manifest of pairs whose noise is a constant of the pair, so that it can be told apart."""
    rows = []
    for number in range(count):
        clean = np.clip(speech_like(number, seconds), -0.4, 0.4)
        sides = {"clean": clean, "noisy": clean + 0.01 * (number + 1)}
        for side, samples in sides.items():
            (root / side).mkdir(parents=True, exist_ok=True)
            soundfile.write(root / side / f"{number}.wav", samples, RATE, subtype="PCM_16")
            rows.append((f"{side}/{number}.wav", "train", f"paired_{side}", f"s{number}"))
    if speech:
        soundfile.write(root / "voice.wav", speech_like(9, count * seconds), RATE)
        rows.append(("voice.wav", "train", "speech", "v"))
    write_manifest(root / "manifest.csv", rows)
    return root / "manifest.csv"


def load(path: Path) -> SpeechBank:
    return SpeechBank.load(Manifest.read(path))


def test_crops_are_the_files_and_aligned(tmp_path: Path) -> None:
    bank = load(write_pairs(tmp_path))
    pairs = RecordedPairs(bank, MIX)
    assert pairs.share == 1 and len(bank.pairs) == 3 and bank.seconds["paired_clean"] == pytest.approx(6)
    seen = set()
    for seed in range(20):
        noisy, clean = pairs.sample(np.random.default_rng(seed))
        assert noisy.shape == clean.shape == (8000,) and noisy.dtype == clean.dtype == np.float32
        offset = np.round((noisy - clean) * 100, 1)
        assert np.ptp(offset) == 0
        seen.add(float(offset[0]))
    assert seen == {1.0, 2.0, 3.0}


def test_share_follows_seconds_or_the_recipe(tmp_path: Path, bank: SpeechBank) -> None:
    both = load(write_pairs(tmp_path, speech=True))
    assert RecordedPairs(both, MIX).share == pytest.approx(0.5)
    assert RecordedPairs(both, replace(MIX, paired=0.25)).share == 0.25
    assert RecordedPairs(bank, MIX).share == 0
    with pytest.raises(SemambaError, match=r"mix\.paired is 0\.5, but the training split has no recorded pairs"):
        RecordedPairs(bank, replace(MIX, paired=0.5))
    alone = load(write_pairs(tmp_path / "alone"))
    with pytest.raises(SemambaError, match=r"mix\.paired is 0\.5, but there is no speech to mix"):
        RecordedPairs(alone, replace(MIX, paired=0.5))
    with pytest.raises(SemambaError, match="auto, or a share"):
        MixConfig(paired=1.5)


@pytest.mark.parametrize("kind", [MixDataset, DeviceMixer])
def test_a_batch_has_its_share_of_pairs_and_is_repeatable(tmp_path: Path, kind: type) -> None:
    bank = load(write_pairs(tmp_path, speech=True))
    mix = replace(MIX, paired=0.5, level_dbfs=(-20.0, -20.0))

    def batch() -> tuple[np.ndarray, np.ndarray]:
        noisy, clean = kind(bank, mix, seed=3).batch(0, 40)
        return noisy.numpy(), clean.numpy()

    noisy, clean = batch()
    recorded = np.ptp(np.round((noisy - clean) * 100, 1), axis=1) == 0
    assert 8 <= recorded.sum() <= 32 and np.isfinite(noisy).all()
    assert all(np.array_equal(*sides) for sides in zip((noisy, clean), batch(), strict=True))
    everything = kind(bank, replace(mix, paired=1.0)).batch(0, 4)
    assert (np.ptp(np.round((everything[0] - everything[1]).numpy() * 100, 1), axis=1) == 0).all()


def test_without_pairs_nothing_changes(bank: SpeechBank) -> None:
    for index in range(3):
        auto, off = (MixDataset(bank, replace(MIX, paired=paired))[index][0] for paired in ("auto", 0.0))
        assert np.array_equal(auto, off)


def test_remix_takes_the_noise_of_another_pair(tmp_path: Path) -> None:
    pairs = RecordedPairs(load(write_pairs(tmp_path)), replace(MIX, paired_remix=1.0))
    mixed = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        noisy, clean = pairs.sample(rng)
        level = (noisy - clean) * 100
        assert np.ptp(np.round(level, 1)) == 0 and 0.9 < level[0] < 3.1
        plain = RecordedPairs(pairs.bank, MIX).sample(np.random.default_rng(seed))
        assert np.array_equal(plain[1], clean)
        mixed += not np.allclose(plain[0], noisy, atol=1e-4)
    assert mixed > 10


def test_gain_is_shared_by_both_sides_and_never_clips(tmp_path: Path) -> None:
    bank = load(write_pairs(tmp_path))
    for gain in (-6.0, 40.0):
        noisy, clean = RecordedPairs(bank, replace(MIX, paired_gain_db=(gain, gain))).sample(np.random.default_rng(1))
        plain = RecordedPairs(bank, MIX).sample(np.random.default_rng(1))
        factor = noisy[100] / plain[0][100]
        assert np.allclose(noisy, plain[0] * factor, atol=1e-6) and np.allclose(clean, plain[1] * factor, atol=1e-6)
        assert factor == pytest.approx(10 ** (gain / 20), rel=1e-4) if gain < 0 else np.abs(noisy).max() <= 0.991


def test_a_pair_shorter_than_the_crop_is_repeated_on_both_sides(tmp_path: Path) -> None:
    pairs = RecordedPairs(load(write_pairs(tmp_path, count=1, seconds=0.2)), MIX)
    noisy, clean = pairs.sample(np.random.default_rng(0))
    assert np.ptp(np.round((noisy - clean) * 100, 1)) == 0 and np.array_equal(clean[:3200], clean[3200:6400])


def test_a_long_pair_is_drawn_for_its_length(tmp_path: Path) -> None:
    write_pairs(tmp_path, count=2)
    for side, offset in (("clean", 0.0), ("noisy", 0.01)):
        soundfile.write(tmp_path / side / "0.wav", speech_like(0, 18.0) * 0.5 + offset, RATE, subtype="PCM_16")
    pairs = RecordedPairs(load(tmp_path / "manifest.csv"), MIX)
    rng = np.random.default_rng(0)
    drawn = [round(float(np.subtract(*pairs.sample(rng))[0]) * 100) for _ in range(200)]
    assert 160 < drawn.count(1) < 196  # 36 of 40 crops


def test_pairs_that_are_not_right_are_named_once_and_left_out(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, count=5)
    (tmp_path / "noisy/0.wav").write_bytes(b"damaged in the middle of the night")
    soundfile.write(tmp_path / "noisy/1.wav", np.full(9000, 0.1), RATE)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "clean/2" not in line))
    with pytest.warns(UserWarning) as caught:
        bank = load(path)
    lines = sorted(str(item.message) for item in caught)
    assert len(lines) == 3 and len(bank.pairs) == 2
    assert "noisy/0.wav: cannot be read" in lines[0]
    assert "noisy/1.wav: 9000 samples, but its clean partner has 32000" in lines[1]
    assert "noisy/2.wav (paired_noisy) has no partner" in lines[2]


def test_where_no_pair_is_whole_speech_is_mixed(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, count=1, speech=True)
    (tmp_path / "noisy/0.wav").unlink()
    with pytest.warns(UserWarning):
        bank = load(path)
    assert bank.voices and not bank.pairs and RecordedPairs(bank, MIX).share == 0


def test_the_cache_keeps_pairs(tmp_path: Path) -> None:
    manifest = Manifest.read(write_pairs(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        banks = [SpeechBank.load(manifest, cache=tmp_path / "cache") for _ in range(2)]
    assert banks[0].pairs == banks[1].pairs == SpeechBank.load(manifest).pairs
