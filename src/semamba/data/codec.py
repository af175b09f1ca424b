"""Artefacts of lossy speech coding by rule: a transform codec that throws away what it cannot afford.

Letters: n signals, L samples, T frames, M coefficients a frame, K bands.

Like MP3, AAC or the music mode of Opus it codes a lapped cosine transform (MDCT; Princen & Bradley 1986) in bands about
as wide as the ear's. Each band is rounded to multiples of a step that follows its own level, which is what one hears of
a bit rate: with a small step the rounding is masked; with a large one only the peaks survive, which sounds like birds
and running water. No bits are written, so it is as fast on a GPU as the rest of the mixture.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

M = 320  # coefficients, 20 ms at 16 kHz
EDGES_HZ = (0, 200, 400, 600, 800, 1000, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700, 4400, 5300, 6400, 8000)
QUIET = 1e-7  # RMS of a band, below which it is left out


def squeeze(x: Tensor, step: Tensor) -> Tensor:
    """(n, L) and (n, 1) -> (n, L): each band of `x` rounded to multiples of `step` times its RMS in the frame.

    A step of 0.3 is hard to hear; from about 1.5 on most coefficients become zero. A step of zero gives `x` back.
    """
    transform, bands = _tables(x.device)
    length = x.shape[-1]
    frames = functional.pad(x, (M, M + -length % M)).unfold(-1, 2 * M, M)  # (n, T, 2 M), half overlapping
    spectrum = frames @ transform  # (n, T, M)
    level = (spectrum.square() @ bands / bands.sum(0)).sqrt() @ bands.T  # RMS of the band that each coefficient is in
    quantum = step[..., None] * level
    coded = torch.where(quantum > 0, (spectrum / quantum.clamp(min=QUIET)).round() * quantum, spectrum)
    coded = torch.where(level > QUIET, coded, torch.zeros_like(coded))
    first, second = (coded @ transform.T).split(M, -1)
    return (first[:, 1:] + second[:, :-1]).flatten(1)[:, :length]


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """The transform (2 M, M) with its sine window, orthogonal over overlapping frames; membership in bands (M, K)."""
    n, k = torch.arange(2 * M, dtype=torch.float64) + 0.5, torch.arange(M, dtype=torch.float64) + 0.5
    window = torch.sin(math.pi / (2 * M) * n)
    transform = math.sqrt(2 / M) * window[:, None] * torch.cos(math.pi / M * (n[:, None] + M / 2) * k)
    band = torch.bucketize(k * 8000 / M, torch.tensor(EDGES_HZ[1:-1], dtype=torch.float64))
    bands = functional.one_hot(band, len(EDGES_HZ) - 1)
    return transform.float().to(device), bands.float().to(device)
