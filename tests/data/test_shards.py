"""Shards: nothing lost, pairs together, kinds spread, damage named; windows: a partition, repeatable, made ahead."""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from semamba.data.bank import SpeechBank
from semamba.data.dataset import MixDataset
from semamba.data.manifest import Manifest
from semamba.data.mixing import MixConfig
from semamba.data.reading import read_int16
from semamba.data.shards import read_shard, write_shards
from semamba.data.windows import Windows
from semamba.errors import SemambaError
from tests.data.test_recorded import write_pairs

pytest.importorskip("webdataset")

MB = 0.05  # a shard holds about 2.7 s


def by_shard(manifest: Manifest) -> dict[Path, list]:
    groups: dict[Path, list] = {}
    for entry in manifest:
        if entry.shard:
            groups.setdefault(entry.shard, []).append(entry)
    return groups


def test_shards_hold_the_same_samples_and_the_manifest_its_rows(corpus: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(corpus)
    ticks: list[tuple[int, int]] = []
    write_shards(manifest, tmp_path, shard_mb=MB * 2, progress=lambda *state: ticks.append(state))
    packed = Manifest.read(tmp_path / "manifest.csv")
    groups = by_shard(packed)
    assert len(groups) >= 2 and ticks[-1] == (9, 9)
    assert Counter((e.split, e.kind) for e in packed) == Counter((e.split, e.kind) for e in manifest)
    assert all(entry.shard is None for entry in packed.select("valid")) and not by_shard(packed.select("train", "rir"))
    read = [piece for path, entries in groups.items() for piece in read_shard(path, entries, 16000)]
    original = sorted(read_int16(e.path, 16000).tobytes() for e in manifest.select("train") if e.kind != "rir")
    assert sorted(samples.tobytes() for _, samples in read) == original
    assert all(entry.seconds == pytest.approx(len(samples) / 16000, abs=1e-3) for entry, samples in read)


def test_noises_in_shards_keep_their_names(corpus: Path, tmp_path: Path) -> None:
    packed = write_shards(Manifest.read(corpus), tmp_path, shard_mb=MB)
    names = sorted(entry.path.stem.split("-", 1)[1] for entry in packed.select("train", "noise"))
    assert names == ["noise-0", "noise-1", "noise-2"]
    pieces = [piece for path, entries in by_shard(packed).items() for piece in read_shard(path, entries, 16000)]
    bank = SpeechBank.build(pieces)
    assert sorted(bank.noise_chances({"*-noise-1*": 0.0}).tolist()) == [0.0, 0.5, 0.5]


def test_shards_are_reproducible_and_spread_each_kind(corpus: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shards(Manifest.read(corpus), tmp_path / name, shard_mb=MB * 3)
    for path in (tmp_path / "one/shards").iterdir():
        assert path.read_bytes() == (tmp_path / "two/shards" / path.name).read_bytes()
    speech = [
        Counter(e.kind for e in group)["speech"]
        for group in by_shard(Manifest.read(tmp_path / "one/manifest.csv")).values()
    ]
    assert max(speech) - min(speech) <= 1


def test_pairs_stay_together_and_make_the_same_bank(tmp_path: Path) -> None:
    manifest = Manifest.read(write_pairs(tmp_path / "files", count=5))
    packed = write_shards(manifest, tmp_path / "packed", shard_mb=MB)
    groups = by_shard(packed)
    assert len(groups) > 1
    pieces = []
    for path, entries in groups.items():
        assert Counter(entry.kind for entry in entries)["paired_clean"] * 2 == len(entries)
        pieces += list(read_shard(path, entries, 16000))
    assert len(SpeechBank.build(pieces).pairs) == 5 and len(packed.pairs("train")) == 5
    with pytest.raises(SemambaError, match="window by window"):
        SpeechBank.load(packed)


def test_damage_is_named(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "files", count=4)
    (tmp_path / "files/noisy/1.wav").write_bytes(b"bad")
    with pytest.warns(UserWarning, match=r"noisy/1\.wav: cannot be read.*left out"):
        packed = write_shards(Manifest.read(path), tmp_path / "packed", shard_mb=1)
    ((shard, entries),) = by_shard(packed).items()
    assert len(entries) == 6
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged or missing"):
        assert 0 < len(list(read_shard(shard, entries, 16000))) < 6
    shard.unlink()
    with pytest.warns(UserWarning, match="6 files left out"):
        assert not list(read_shard(shard, entries, 16000))
    with pytest.raises(SemambaError, match="no speech, noise or pairs in split 'nowhere'"):
        write_shards(Manifest.read(path), tmp_path / "none", split="nowhere")


@pytest.fixture
def packed(tmp_path: Path) -> Manifest:
    return write_shards(Manifest.read(write_pairs(tmp_path / "files", count=8)), tmp_path / "packed", shard_mb=MB)


def test_windows_are_a_partition_of_every_pass(packed: Manifest) -> None:
    shards = set(by_shard(packed))
    windows = Windows(packed, "train", seconds_per_step=1.0, memory_mb=0.3, seed=1)
    assert 1 < windows.count < len(shards) and windows.steps == round(16 / windows.count)
    for number in range(3):
        chosen = [windows.chosen(number * windows.count + place) for place in range(windows.count)]
        assert Counter(path for window in chosen for path in window) == Counter(shards)
        assert max(map(len, chosen)) <= windows.size
    assert windows.chosen(0) != windows.chosen(windows.count)
    assert Windows(packed, "train", 1.0, memory_mb=100).count == 1


def mix(bank: SpeechBank, window: int):  # noqa: ANN201
    data = MixDataset(bank, MixConfig(crop_seconds=0.5), seed=1, epoch=window)
    return lambda step, steps: data.batches(2, steps, step, workers=0)


def test_a_resumed_run_sees_the_same_batches_across_windows(packed: Manifest, tmp_path: Path) -> None:
    windows = Windows(packed, "train", seconds_per_step=1.0, memory_mb=0.3, seed=1)
    steps = windows.steps * 2 + 1
    stream = windows.batches(mix, cache=tmp_path / "cache")
    whole = list(islice(stream, steps))
    stream.close()
    rest = windows.batches(mix, start=windows.steps - 1)
    for expected, got in zip(whole[windows.steps - 1 :], rest, strict=False):
        assert torch.equal(expected[0], got[0]) and torch.equal(expected[1], got[1])
    rest.close()
    assert not list((tmp_path / "cache").iterdir())
    assert not torch.equal(whole[0][0], whole[windows.steps][0])


def test_a_lost_shard_costs_its_files_only(packed: Manifest) -> None:
    windows = Windows(packed, "train", seconds_per_step=4.0, memory_mb=0.01, seed=0)
    assert windows.count == len(by_shard(packed))
    windows.chosen(1)[0].unlink()
    stream = windows.batches(mix)
    with pytest.warns(UserWarning, match="damaged or missing"):
        assert len(list(islice(stream, windows.steps * 3))) == windows.steps * 3
    stream.close()
    windows.chosen(0)[0].unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = windows.batches(mix)
        with pytest.raises(SemambaError, match="first window of shards holds no readable"):
            next(stream)


def test_files_beside_the_shards_are_in_every_window(corpus: Path, tmp_path: Path) -> None:
    packed = write_shards(Manifest.read(corpus), tmp_path, shard_mb=MB)
    windows = Windows(packed, "train", seconds_per_step=1.0, memory_mb=0.3)
    banks = []

    def note(bank: SpeechBank, window: int):  # noqa: ANN202
        banks.append(bank)
        return lambda step, steps: iter([np.zeros(1)] * steps)

    stream = windows.batches(note)
    list(islice(stream, windows.steps * windows.count))
    stream.close()
    assert len(banks) == windows.count > 1 and all(len(bank.rirs) == 1 for bank in banks)
    assert sum(bank.seconds["speech"] for bank in banks) == pytest.approx(18)
