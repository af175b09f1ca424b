"""A run small enough for a test: a few thousand weights, synthetic pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semamba import config
from semamba.data.dataset import Pair
from semamba.train.recipe import Recipe

MODEL = {"kind": "causal", "channels": 8, "sub_bands": 8, "d_model": 8, "blocks": 1, "heads": 2, "d_state": 4}
ADVANCED = {
    "kind": "advanced",
    "stft": {"n_fft": 64, "hop_length": 32},
    "channels": 8,
    "blocks": 1,
    "mixer": {"kind": "mamba", "expand": 1, "d_state": 4},
}


def recipe(**groups: Any) -> Recipe:
    mapping = {
        "name": "tiny",
        "model": MODEL,
        "optimiser": {"lr": 3e-3, "warmup": 3},
        "train": {"steps": 6, "batch_size": 2, "log_every": 2, "validate_every": 0, "seed": 3, "device": "cpu"},
    }
    return config.parse(Recipe, config.merge(mapping, groups))


def pair(seed: int, length: int = 4096) -> tuple[Tensor, Tensor]:
    """(noisy, clean), (n,): a gliding harmonic tone, with white noise at about 5 dB."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / 16000
    pitch = 120 + 80 * torch.rand((), generator=generator) + 40 * torch.sin(3 * time)
    angle = 2 * torch.pi * torch.cumsum(pitch / 16000, 0)
    clean = 0.05 * (torch.sin(angle) + torch.sin(2 * angle) + torch.sin(5 * angle))
    return clean + 0.04 * torch.randn(length, generator=generator), clean


def batches(step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (2, n) for `step` and all later ones."""
    while True:
        rows = [pair(2 * step), pair(2 * step + 1)]
        yield torch.stack([noisy for noisy, _ in rows]), torch.stack([clean for _, clean in rows])
        step += 1


def speech_like(seconds: float = 2.0) -> Pair:
    """A pair that PESQ accepts: the tone switched on and off like syllables, with noise."""
    length = round(16000 * seconds)
    noisy, clean = pair(0, length)
    gate = (torch.sin(2 * torch.pi * 2 * torch.arange(length) / 16000) > -0.3).float()
    wave = clean * gate
    return Pair("tone", (wave + (noisy - clean)).numpy().astype(np.float32), wave.numpy().astype(np.float32))
