"""Batches: deterministic, equal after a resume and for any number of workers; pairs for validation fixed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from semamba.data.bank import SpeechBank
from semamba.data.dataset import MixDataset, PairDataset, batches, validation_pairs
from semamba.data.manifest import Manifest
from semamba.data.mixing import MixConfig, active_rms
from semamba.errors import SemambaError
from tests.data.test_recorded import write_pairs

MIX = MixConfig(crop_seconds=0.5)


def test_item_depends_on_seed_epoch_and_index_alone(bank: SpeechBank) -> None:
    data = MixDataset(bank, MIX, seed=1)
    first = data[5][0]
    assert torch.equal(first, MixDataset(bank, MIX, seed=1)[5][0])
    for other in (data[6], MixDataset(bank, MIX, seed=2)[5], MixDataset(bank, MIX, seed=1, epoch=1)[5]):
        assert not torch.equal(first, other[0])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_resumed_run_sees_the_same_batches(bank: SpeechBank, workers: int) -> None:
    whole = list(batches(bank, MIX, batch_size=2, steps=4, seed=3, workers=0))
    rest = list(batches(bank, MIX, batch_size=2, steps=2, seed=3, start=2, workers=workers))
    assert len(whole) == 4 and len(rest) == 2
    for expected, got in zip(whole[2:], rest, strict=True):
        assert got[0].shape == (2, 8000) and got[0].dtype == torch.float32
        assert torch.equal(expected[0], got[0]) and torch.equal(expected[1], got[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_shares_of_a_batch_are_its_rows_in_order(bank: SpeechBank, workers: int) -> None:
    whole = next(iter(batches(bank, MIX, batch_size=4, steps=1, start=5, workers=0)))
    parts = [next(iter(batches(bank, MIX, 4, 1, start=5, workers=workers, share=(part, 2)))) for part in (0, 1)]
    for index in (0, 1):
        assert torch.equal(whole[index], torch.cat([part[index] for part in parts]))


def test_endless_batches_can_be_closed(bank: SpeechBank) -> None:
    stream = batches(bank, MIX, batch_size=1)
    assert len(list(islice(stream, 3))) == 3
    stream.close()  # type: ignore[attr-defined]


def test_pair_folders(corpus: Path, tmp_path: Path) -> None:
    root = corpus.parent / "valid/paired"
    pairs = PairDataset(root / "clean", root / "noisy")
    assert len(pairs) == 3 and pairs[0].name == "p0"
    assert pairs[0].noisy.dtype == np.float32 and pairs[0].noisy.shape == pairs[0].clean.shape == (24000,)
    soundfile.write(tmp_path / "p0.wav", np.zeros(100), 16000)
    with pytest.raises(SemambaError, match=r"p1\.flac.*other folder"):
        PairDataset(root / "clean", tmp_path)


def test_pairs_of_unequal_length_are_an_error(tmp_path: Path) -> None:
    for name, length in (("clean", 16000), ("noisy", 15000)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.zeros(length), 16000)
    with pytest.raises(SemambaError, match="15000 samples"):
        PairDataset(tmp_path / "clean", tmp_path / "noisy")[0]


def test_validation_pairs_are_fixed(corpus: Path) -> None:
    manifest = Manifest.read(corpus)
    first, again = validation_pairs(manifest, mixtures=2), validation_pairs(manifest, mixtures=2)
    assert [pair.name.split("/")[0] for pair in first] == ["paired"] * 3 + ["mixed"] * 2
    for a, b in zip(first, again, strict=True):
        assert a.name == b.name and np.array_equal(a.noisy, b.noisy) and np.array_equal(a.clean, b.clean)
        assert a.noisy.dtype == np.float32 and np.abs(a.noisy).max() <= 1
    assert len(validation_pairs(manifest, "valid/paired")) == 3
    with pytest.raises(SemambaError, match="to validate on in 'absent'"):
        validation_pairs(manifest, "absent")


def test_bad_validation_pairs_are_named_and_left_out(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, count=4)
    (tmp_path / "noisy/0.wav").write_bytes(b"?")
    soundfile.write(tmp_path / "clean/1.wav", np.zeros(100), 16000)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "noisy/2" not in line))
    with pytest.warns(UserWarning) as caught:
        assert len(validation_pairs(Manifest.read(path), "train")) == 1
    assert len(caught) == 3


def test_real_corpus(shared_dir: Path) -> None:
    manifest = Manifest.read(shared_dir / "data/manifest.csv")
    assert len(manifest.select("train", "speech")) == 1144
    assert len(validation_pairs(manifest, "valid/paired")) == 16


def test_mixtures_for_validation_have_the_stated_range(corpus: Path) -> None:
    mixtures = validation_pairs(Manifest.read(corpus), mixtures=3)[3:]
    assert mixtures
    for pair in mixtures:
        snr = 20 * np.log10(active_rms(pair.clean, 16000) / active_rms(pair.noisy - pair.clean, 16000))
        assert -0.1 <= snr <= 15.1
