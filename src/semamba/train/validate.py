"""Validation: enhance a fixed set of pairs with the averaged weights and score them in a few processes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semamba.data.dataset import Pair
from semamba.spectrum import Spectrum

SCORES = ("pesq", "stoi", "si_sdr")

Wave = NDArray[np.float32]


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
    model: nn.Module, spectrum: Spectrum, pairs: list[Pair], device: torch.device, pool: Executor
) -> dict[str, float]:
    """Mean scores of the enhanced pairs; see `score_all`. The pool scores one pair while the next is enhanced."""
    return score_all(((pair.clean, enhance(model, spectrum, pair.noisy, device)) for pair in pairs), pool)


def score_all(signals: Iterable[tuple[Wave, Wave]], pool: Executor) -> dict[str, float]:
    """Mean PESQ-WB, STOI and SI-SDR of (clean, other) signals; NaN where a measure is defined for none of them.

    `unscored` counts the single measures that were not defined, for example of a silent output.
    """
    futures = [pool.submit(score_pair, clean, other) for clean, other in signals]
    scored = [future.result() for future in futures]
    means = {}
    for name in SCORES:
        values = [scores[name] for scores in scored if name in scores]
        means[name] = float(np.mean(values)) if values else float("nan")
    means["unscored"] = float(sum(len(SCORES) - len(scores) for scores in scored))
    return means


def score_pair(clean: Wave, enhanced: Wave) -> dict[str, float]:
    """Scores of one pair, runs in a worker process without torch; a measure that is not defined is left out."""
    from semamba.metrics import intrusive

    measures = {"pesq": intrusive.pesq_wb, "stoi": intrusive.stoi, "si_sdr": intrusive.si_sdr}
    scores = {}
    for name, measure in measures.items():
        try:
            scores[name] = measure(clean, enhanced)
        except intrusive.MetricError:
            continue
    return scores
