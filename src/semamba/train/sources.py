"""From a manifest to what a run needs: batches, validation pairs, and the list of sources for the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from semamba.data.bank import SpeechBank
from semamba.data.dataset import Batch, Pair, batches, validation_pairs
from semamba.data.device import DeviceMixer
from semamba.data.manifest import Manifest
from semamba.errors import SemambaError
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
    bank = SpeechBank.load(manifest, "train", cache=cache)
    train = recipe.train
    if train.mix_on == "device" or (train.mix_on == "auto" and device.type == "cuda"):
        mixer = DeviceMixer(bank, recipe.mix, device, train.seed, share=share)
        return lambda step: mixer.batches(train.batch_size, ENDLESS - step, step)

    def from_step(step: int) -> Iterator[Batch]:
        return batches(bank, recipe.mix, train.batch_size, ENDLESS - step, train.seed, step, train.workers, share)

    return from_step


def open_validation(recipe: Recipe, manifest: Manifest) -> list[Pair]:
    """The fixed pairs that choose the best weights. Raises SemambaError when the split has none."""
    cfg = recipe.valid
    pairs = validation_pairs(manifest, cfg.split, cfg.mixtures, seed=0)
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
