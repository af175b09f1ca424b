"""From a manifest to what a run needs: batches, validation pairs, and the list of sources for the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from semamba.data.bank import SpeechBank
from semamba.data.dataset import Batch, MixDataset, Pair, validation_pairs
from semamba.data.device import DeviceMixer
from semamba.data.manifest import Manifest
from semamba.data.windows import Windows
from semamba.errors import SemambaError
from semamba.metrics.intrusive import PESQ_SECONDS, require_extra
from semamba.train.recipe import Recipe

ENDLESS = 1 << 31  # more steps than any run takes
CPU = torch.device("cpu")


def open_training(
    recipe: Recipe,
    manifest: Manifest,
    cache: Path | None = None,
    share: tuple[int, int] = (0, 1),
    device: torch.device = CPU,
) -> Callable[[int], Iterator[Batch]]:
    """A function from the first step to its batches and all later ones, each (noisy, clean) of shape (B, n).

    `share` is (rank, ranks): of every batch only this rank's rows. `device` is where the recipe may mix them.
    """
    train = recipe.train
    on_device = train.mix_on == "device" or (train.mix_on == "auto" and device.type == "cuda")

    def mix(bank: SpeechBank, epoch: int) -> Callable[[int, int], Iterator[Batch]]:
        """A function of (first step, steps)."""
        if on_device:
            mixer = DeviceMixer(bank, recipe.mix, device, train.seed, epoch, share)
            return lambda step, steps: mixer.batches(train.batch_size, steps, step)
        data = MixDataset(bank, recipe.mix, train.seed, epoch, share=share)
        return lambda step, steps: data.batches(train.batch_size, steps, step, train.workers)

    if any(entry.shard for entry in manifest.select("train")):
        seconds = train.batch_size * recipe.mix.crop_seconds
        windows = Windows(manifest, "train", seconds, train.window_mb, train.seed)
        return lambda step: windows.batches(mix, step, cache)
    batches = mix(SpeechBank.load(manifest, "train", cache=cache), 0)
    return lambda step: batches(step, ENDLESS - step)


def open_validation(recipe: Recipe, manifest: Manifest) -> list[Pair]:
    """The fixed pairs that choose the best weights. Raises SemambaError when the split has none or PESQ is missing."""
    require_extra()  # now, not after the minutes before the first validation
    cfg = recipe.valid
    for entry in manifest.select(cfg.split):
        if entry.split.lower().startswith("test"):
            raise SemambaError(
                f"{manifest.origin}: valid.split '{cfg.split}' holds {entry.name} of split '{entry.split}', "
                "and a test split must not choose the weights; give it a folder of its own"
            )
    pairs = validation_pairs(manifest, cfg.split, cfg.mixtures, seed=0, seconds=PESQ_SECONDS)
    if not pairs:
        raise SemambaError(
            f"{manifest.origin}: split '{cfg.split}' has no recorded pairs; add some, or set valid.mixtures to mix its "
            "speech and noise"
        )
    return pairs[: cfg.limit] if cfg.limit else pairs


def describe_sources(manifest: Manifest, split: str = "train") -> list[dict[str, Any]]:
    """Files and minutes of the split by kind, corpus and licence; file names are stripped from the source column."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for entry in manifest.select(split):
        corpus = entry.source.split(":")[0] or "unnamed"
        groups.setdefault((entry.kind, corpus, entry.licence or "not stated"), []).append(entry.seconds)
    return [
        {"kind": kind, "source": corpus, "licence": licence, "files": len(times), "minutes": round(sum(times) / 60, 1)}
        for (kind, corpus, licence), times in sorted(groups.items())
    ]
