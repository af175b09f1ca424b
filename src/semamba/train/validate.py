"""Validation: enhance a fixed set of pairs with the averaged weights and score them in a few processes."""

from __future__ import annotations

import torch
from torch import nn

from semamba.data.dataset import Pair
from semamba.spectrum import Spectrum
from semamba.train.scores import Wave, score_all


@torch.inference_mode()
def enhance(model: nn.Module, spectrum: Spectrum, noisy: Wave, device: torch.device) -> Wave:
    """Whole utterance (n,) -> (n,), at its own level, as inference treats it."""
    wave = torch.from_numpy(noisy).to(device)[None]
    scale = 1.0
    if model.normalise == "rms":
        scale = 1 / max(float(wave.square().mean().sqrt()), 1e-5)
    enhanced, _ = model(spectrum.analyse(wave * scale))
    return (spectrum.synthesise(enhanced, wave.shape[-1])[0] / scale).cpu().numpy()


def validate(
    model: nn.Module, spectrum: Spectrum, pairs: list[Pair], device: torch.device, jobs: int
) -> dict[str, float]:
    """Mean scores of the enhanced pairs; see `score_all`. `jobs` processes score pairs while others are enhanced."""
    return score_all(((pair.clean, enhance(model, spectrum, pair.noisy, device)) for pair in pairs), jobs)
