"""A differentiable distance in the manner of PESQ (ITU-T P.862 with its wideband extension P.862.2), for training.

Letters: B batch, n samples, T frames, F bins, K Bark bands. Band powers are on PESQ's scale, on which a signal has a
mean square of 1e7 in the calibration band.

It keeps what makes PESQ differ from a spectral distance: Bark bands, Zwicker's loudness above the threshold of hearing,
a dead zone in which differences are masked, an asymmetry that punishes what was added more than what was removed, norms
that let the worst third of a second dominate, and what is forgiven: a transfer function that stays (band by band, over
the whole signal) and a gain that varies (frame by frame). It leaves out what does not concern an enhancer whose output
is aligned with its target: time alignment, utterance splitting, and the skipping of silence at both ends. The input
filter, bands and thresholds come from short formulas instead of the standard's tables. On recorded pairs, what the
shipped models make of them and mixtures of both it follows the raw score of PESQ with a correlation of about -0.99
(tests/test_perceptual.py). Use PESQ itself to report; see `semamba.metrics`.

A large weight bends the spectrum: what is forgiven can be used, since PESQ hears less of the noise where all is turned
down. A small one improves nearly everything else as well (docs/ablations.md has figures).
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

N_FFT, HOP = 512, 256  # 32 ms at 16 kHz, as P.862
BANDS, LOWEST, HIGHEST = 48, 70.0, 8000.0  # number, and the outer edges in Hz
CALIBRATION = (350.0, 3250.0)  # Hz: the band in which both signals are brought to a mean square of 1e7
POWER_SCALE, LOUDNESS_SCALE = 6.910853e-4, 1.866055e-1  # P.862's factors at 16 kHz; the first per bin of 31.25 Hz
# P.862.2's input filter, about: a second-order high-pass; power above the corner, and Hz
INPUT_GAIN, INPUT_CORNER = 7.94, 100.0
INTERVAL = 20  # frames in one window of the inner time norm
MEMORY = 0.2  # share of the last frame's gain in the next one's
TAPS = 6  # frames of that memory; 0.2^6 is nothing


class _Tables(NamedTuple):
    bands: Tensor  # (F, K): the share of each bin in each band
    width: Tensor  # (K,), Bark
    threshold: Tensor  # (K,): of hearing, as power
    exponent: Tensor  # (K,): of loudness
    calibration: Tensor  # (F,): 1 in the calibration band
    input_filter: Tensor  # (F,): power
    memory: Tensor  # (1, 1, TAPS): how the gain of a frame follows that of the frames before


def distance(enhanced: Tensor, clean: Tensor) -> Tensor:
    """(B, n) and (B, n) at 16 kHz -> (B,): about 4.5 minus the raw PESQ score; 0 where they sound the same.

    Any level; each signal is calibrated on its own. Silent items give a finite value that means nothing.
    """
    tables = _tables(clean.device)
    threshold, width = tables.threshold, tables.width
    made, target = (_band_power(wave, tables) for wave in (enhanced, clean))  # (B, T, K)
    target = target * _transfer(made, target, threshold)
    made_power, target_power = (_audible(power, threshold) for power in (made, target))  # (B, T)
    made = made * _gain(made_power, target_power, tables.memory)[..., None]
    loudness = [_loudness(power, threshold, tables.exponent) for power in (made, target)]
    dead_zone = 0.25 * torch.minimum(*loudness)
    disturbance = ((loudness[0] - loudness[1]).abs() - dead_zone).clamp(min=0)
    added = ((made + 50) / (target + 50)).pow(1.2).clamp(max=12)
    asymmetric = torch.where(added >= 3, disturbance * added, 0.0)
    total = width.sum()
    per_frame = ((disturbance * width).square().sum(-1) / total + 1e-12).sqrt() * total  # (B, T)
    per_frame_added = (asymmetric * width).sum(-1)
    importance = ((target_power + 1e5) / 1e7).pow(0.04)
    norms = [_over_time((d / importance).clamp(max=45)) for d in (per_frame, per_frame_added)]
    return 0.1 * norms[0] + 0.0309 * norms[1]


def _transfer(made: Tensor, target: Tensor, threshold: Tensor) -> Tensor:
    """(B, 1, K): what the whole signal did to each band while somebody spoke, at most 20 dB."""
    loud = 100 * threshold
    spoken = _audible(target, loud)[..., None] >= 1e7
    means = [torch.where((power > loud) & spoken, power, 0.0).mean(1, keepdim=True) for power in (made, target)]
    return ((means[0] + 1000) / (means[1] + 1000)).clamp(0.01, 100)


def _gain(made: Tensor, target: Tensor, memory: Tensor) -> Tensor:
    """Audible powers (B, T) -> (B, T): what brings each frame to the target's power, a little smoothed."""
    ratio = functional.pad(((target + 5e3) / (made + 5e3))[:, None], (TAPS - 1, 0), mode="replicate")
    return functional.conv1d(ratio, memory)[:, 0].clamp(3e-4, 5)


def _audible(power: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(power > threshold, power, 0.0).sum(-1)


def _over_time(frames: Tensor) -> Tensor:
    """(B, T) -> (B,): sixth-power mean in windows of a third of a second, root mean square of the windows."""
    size = min(INTERVAL, frames.shape[1])
    windows = frames.unfold(1, size, max(size // 2, 1))  # (B, W, size)
    inner = (windows.pow(6).mean(-1) + 1e-24).pow(1 / 6)  # the floor keeps the slope finite where all is equal
    return (inner.square().mean(-1) + 1e-12).sqrt()


def _band_power(wave: Tensor, tables: _Tables) -> Tensor:
    window = torch.hann_window(N_FFT, device=wave.device)
    bins = torch.view_as_real(torch.stft(wave, N_FFT, HOP, window=window, return_complex=True)).square().sum(-1)
    bins = bins.transpose(1, 2)  # (B, T, F)
    # Parseval: mean square in the calibration band, from the two-sided spectrum of windowed frames.
    mean_square = 2 * (bins @ tables.calibration).mean(-1) / (N_FFT * window.square().sum())  # (B,)
    gain = 1e7 / (mean_square + 1e-10)
    return (bins @ (tables.input_filter[:, None] * tables.bands)) * (POWER_SCALE * gain)[:, None, None]


def _loudness(power: Tensor, threshold: Tensor, exponent: Tensor) -> Tensor:
    ratio = (power / threshold).clamp(min=1)
    return LOUDNESS_SCALE * (threshold / 0.5).pow(exponent) * ((0.5 + 0.5 * ratio).pow(exponent) - 1)


def _hertz(bark: Tensor) -> Tensor:
    return 600 * torch.sinh(bark / 6)


@cache
@torch.inference_mode(False)  # they outlive the call, and gradients pass by them in another
@torch.no_grad()
def _tables(device: torch.device) -> _Tables:
    frequency = torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * 16_000 / N_FFT
    half_bin = 8_000 / N_FFT
    lowest, highest = (6 * math.asinh(outer / 600) for outer in (LOWEST, HIGHEST))
    edges = torch.linspace(lowest, highest, BANDS + 1, dtype=torch.float64)  # Bark
    hertz = _hertz(edges)
    upper = torch.minimum(frequency[:, None] + half_bin, hertz[1:])
    lower = torch.maximum(frequency[:, None] - half_bin, hertz[:-1])
    centre = (edges[1:] + edges[:-1]) / 2
    decibel = 2.5 * (_hertz(centre) / 1000) ** -1.27 - 5
    raised = torch.where(centre < 4, 6 / (centre + 2), torch.ones_like(centre)).clamp(max=2) ** 0.15
    rise = (frequency / INPUT_CORNER) ** 4
    memory = MEMORY ** torch.arange(TAPS - 1, -1, -1, dtype=torch.float64)
    tables = _Tables(
        bands=(upper - lower).clamp(min=0) / (2 * half_bin),
        width=edges.diff(),
        threshold=10 ** (decibel / 10),
        exponent=0.23 * raised,
        calibration=((frequency >= CALIBRATION[0]) & (frequency <= CALIBRATION[1])).double(),
        input_filter=INPUT_GAIN * rise / (1 + rise),
        memory=(memory / memory.sum())[None, None],
    )
    return _Tables(*(table.float().to(device) for table in tables))
