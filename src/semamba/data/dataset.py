"""Batches for training and fixed pairs for validation, as torch tensors.

Sample i of seed s and epoch e is the same everywhere and whenever it is asked for, so a run that is
resumed at batch k sees exactly the batches it would have seen.
"""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from semamba.data.bank import SpeechBank
from semamba.data.manifest import Manifest, audio_files
from semamba.data.mixing import MixConfig, Mixer, noise_gain
from semamba.data.reading import read_int16
from semamba.data.recorded import RecordedPairs
from semamba.errors import SemambaError

__all__ = ["Batch", "MixDataset", "Pair", "PairDataset", "SpeechBank", "batches", "validation_pairs"]

Batch = tuple[torch.Tensor, torch.Tensor]  # (noisy, clean), each float32 (B, n)


@dataclass(frozen=True)
class Pair:
    """One recorded or mixed pair, float32 (n,) each."""

    name: str
    noisy: np.ndarray
    clean: np.ndarray


class MixDataset(Dataset[Batch]):
    """Endless random mixtures and recorded pairs; item `index` is determined by (seed, epoch, index).

    `share` is (i, n): of every batch only the rows of the i-th of n equal parts are made, for n processes that train
    on one batch together.
    """

    def __init__(
        self,
        bank: SpeechBank,
        config: MixConfig | None = None,
        seed: int = 0,
        epoch: int = 0,
        length: int = 1 << 31,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.mixer, self.seed, self.epoch, self.length, self.share = Mixer(bank, config), seed, epoch, length, share
        self.recorded = RecordedPairs(bank, self.mixer.config)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        """(noisy, clean), each (n,)."""
        rng = np.random.default_rng([self.seed, self.epoch, index])
        # no number is drawn where there are no pairs, so that such runs stay what they were
        paired = self.recorded.share > 0 and rng.random() < self.recorded.share
        noisy, clean = (self.recorded if paired else self.mixer).sample(rng)
        return torch.from_numpy(noisy), torch.from_numpy(clean)

    def batch(self, index: int, batch_size: int) -> Batch:
        """Batch `index`, each (B, n): items index·B to (index + 1)·B - 1, or the share of them."""
        part, parts = self.share
        size = batch_size // parts
        rows = [self[index * batch_size + part * size + row] for row in range(size)]
        return torch.stack([noisy for noisy, _ in rows]), torch.stack([clean for _, clean in rows])

    def batches(self, batch_size: int, steps: int | None = None, start: int = 0, workers: int = 1) -> Iterator[Batch]:
        """Batches `start` to `start + steps - 1` (without end when None), made ahead in `workers` processes
        (0: in this one).

        Worker processes are forked and share the bank's memory; where fork is missing (Windows,
        macOS) they are left out.
        """
        steps = self.length // batch_size - start if steps is None else steps
        if workers == 0 or "fork" not in multiprocessing.get_all_start_methods():
            yield from (self.batch(start + step, batch_size) for step in range(steps))
            return
        loader = DataLoader(
            _Batches(self, batch_size, start, steps),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4,
            multiprocessing_context="fork",
            worker_init_fn=_leave_signals_to_parent,
        )
        yield from loader


def _leave_signals_to_parent(_worker: int) -> None:
    # Ctrl-C reaches the whole process group; a worker that dies of it would take the parent's clean stop away
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Batches(Dataset[Batch]):
    """Map from a step to its batch, so that the loader ships whole batches."""

    def __init__(self, samples: MixDataset, batch_size: int, start: int, steps: int) -> None:
        self.samples, self.batch_size, self.start, self.steps = samples, batch_size, start, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.samples.batch(self.start + step, self.batch_size)


def batches(
    bank: SpeechBank,
    config: MixConfig | None,
    batch_size: int,
    steps: int | None = None,
    seed: int = 0,
    start: int = 0,
    workers: int = 1,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches of (noisy, clean), each float32 (B, n), from batch `start` on; see MixDataset and its `batches`."""
    return MixDataset(bank, config, seed, share=share).batches(batch_size, steps, start, workers)


class PairDataset(Dataset[Pair]):
    """Recorded pairs in two folders with equal file names (VoiceBank-DEMAND and others)."""

    def __init__(self, clean_dir: str | Path, noisy_dir: str | Path, sample_rate: int = 16000) -> None:
        """Raises SemambaError naming the first file without partner."""
        clean = {path.relative_to(clean_dir).with_suffix(""): path for path in audio_files(clean_dir)}
        noisy = {path.relative_to(noisy_dir).with_suffix(""): path for path in audio_files(noisy_dir)}
        alone = sorted(set(clean) ^ set(noisy))
        if alone:
            raise SemambaError(f"{clean.get(alone[0]) or noisy[alone[0]]}: no file of that name in the other folder")
        self.files = [(str(key), clean[key], noisy[key]) for key in sorted(clean)]
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pair:
        return read_pair(*self.files[index], sample_rate=self.sample_rate)


def read_pair(name: str, clean: Path, noisy: Path, sample_rate: int = 16000) -> Pair:
    """Read a recorded pair; lengths that differ by up to 10 ms are cut to the shorter, more is an error."""
    x, y = (read_int16(path, sample_rate).astype(np.float32) / 32768 for path in (noisy, clean))
    if abs(len(x) - len(y)) > sample_rate // 100:
        raise SemambaError(f"{noisy}: {len(x)} samples, but its clean partner {clean} has {len(y)}")
    size = min(len(x), len(y))
    return Pair(name, x[:size], y[:size])


def validation_pairs(
    manifest: Manifest, split: str = "valid", mixtures: int = 24, seed: int = 0, seconds: int | None = None
) -> list[Pair]:
    """A fixed list: the recorded pairs of the split, then `mixtures` whole utterances of its speech, each
    with a stretch of its noise at 0 to 15 dB. Equal arguments give equal pairs. Of longer recordings only the first
    `seconds` are taken. A pair that is not one is named in a warning and left out."""
    longest = slice(None if seconds is None else seconds * 16000)
    pairs = []
    rows_of_pairs, alone = manifest.partners(split)
    for entry in alone:
        warnings.warn(f"{entry.path} ({entry.kind}) has no partner of the same name; left out", stacklevel=2)
    for clean_row, noisy_row in rows_of_pairs:
        try:
            pair = read_pair(f"paired/{clean_row.path.stem}", clean_row.path, noisy_row.path)
            pairs.append(Pair(pair.name, pair.noisy[longest], pair.clean[longest]))
        except SemambaError as error:
            warnings.warn(f"{error}; left out", stacklevel=2)
    rows = manifest.select(split)
    speech, noises = rows.select(kind="speech").entries, rows.select(kind="noise").entries
    if not pairs and not (speech and noises):
        raise SemambaError(f"{manifest.origin}: neither pairs nor speech and noise to validate on in '{split}'")
    if not speech or not noises:
        return pairs
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(speech))[:mixtures]
    for count, index in enumerate(order):
        clean = read_int16(speech[index].path, 16000)[longest].astype(np.float32) / 32768
        noise = read_int16(noises[count % len(noises)].path, 16000).astype(np.float32) / 32768
        noise = np.resize(np.roll(noise, -int(rng.integers(len(noise)))), len(clean))
        noisy = clean + noise * noise_gain(clean, noise, float(rng.uniform(0, 15)), 16000)
        scale = np.float32(min(1.0, 0.99 / max(float(np.abs(noisy).max()), 1e-6)))
        pairs.append(Pair(f"mixed/{speech[index].path.stem}", noisy * scale, clean * scale))
    return pairs
