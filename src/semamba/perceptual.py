"""A differentiable distance in the manner of PESQ (ITU-T P.862, wideband), for training.

Letters: B batch, n samples, T frames, K Bark bands. Band powers are on PESQ's scale, on which a signal has a mean
square of 1e7 in the calibration band.

It keeps what makes PESQ differ from a spectral distance: Bark bands, Zwicker's loudness above the threshold of hearing,
a dead zone in which differences are masked, an asymmetry that punishes what was added more than what was removed, and
norms that let the worst third of a second dominate. It leaves out what is not differentiable or does not concern an
enhancer whose output is aligned with its target: time alignment, utterance splitting, the equalisation of the transfer
function and the tracking of the gain. Bands and thresholds come from formulas (Schroeder's Bark scale, Terhardt's
threshold) instead of the standard's tables. On noisy pairs and mixtures of clean and noisy it follows the raw score of
PESQ with a correlation of about -0.98 (tests/test_perceptual.py). Use PESQ itself to report; see `semamba.metrics`.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

N_FFT, HOP = 512, 256  # 32 ms at 16 kHz, as P.862
BAND_WIDTH = 0.5  # Bark
CALIBRATION = (350.0, 3250.0)  # Hz: the band in which both signals are brought to a mean square of 1e7
POWER_SCALE, LOUDNESS_SCALE = 6.910853e-6, 1.866055e-1  # P.862's factors at 16 kHz
INTERVAL = 20  # frames in one window of the inner time norm


def distance(enhanced: Tensor, clean: Tensor) -> Tensor:
    """(B, n) and (B, n) at 16 kHz -> (B,): about 4.5 minus the raw PESQ score; 0 where they sound the same.

    Any level; each signal is calibrated on its own. Silent items give a finite value that means nothing.
    """
    bands, width, threshold, gamma, calibration = _tables(clean.device)
    power = [_band_power(wave, bands, calibration) for wave in (enhanced, clean)]  # (B, T, K)
    loudness = [_loudness(p, threshold, gamma) for p in power]
    difference = loudness[0] - loudness[1]
    dead_zone = 0.25 * torch.minimum(*loudness)
    disturbance = (difference.abs() - dead_zone).clamp(min=0)
    added = ((power[0] + 50) / (power[1] + 50)).pow(1.2).clamp(max=12)
    asymmetric = torch.where((added >= 3) & (difference > 0), disturbance * added, torch.zeros_like(added))
    total = width.sum()
    per_frame = ((disturbance * width).square().sum(-1) / total + 1e-12).sqrt() * total  # (B, T)
    per_frame_added = (asymmetric * width).sum(-1)
    audible = torch.where(power[1] > threshold, power[1], torch.zeros_like(power[1])).sum(-1)
    importance = ((audible + 1e5) / 1e7).pow(0.04)
    norms = [_over_time((d / importance).clamp(max=45)) for d in (per_frame, per_frame_added)]
    return 0.1 * norms[0] + 0.0309 * norms[1]


def _over_time(frames: Tensor) -> Tensor:
    """(B, T) -> (B,): sixth-power mean in windows of a third of a second, root mean square of the windows."""
    size = min(INTERVAL, frames.shape[1])
    windows = frames.unfold(1, size, max(size // 2, 1))  # (B, W, size)
    inner = (windows.pow(6).mean(-1) + 1e-24).pow(1 / 6)  # the floor keeps the slope finite where all is equal
    return (inner.square().mean(-1) + 1e-12).sqrt()


def _band_power(wave: Tensor, bands: Tensor, calibration: Tensor) -> Tensor:
    window = torch.hann_window(N_FFT, device=wave.device)
    bins = torch.view_as_real(torch.stft(wave, N_FFT, HOP, window=window, return_complex=True)).square().sum(-1)
    bins = bins.transpose(1, 2)  # (B, T, F)
    # Parseval: mean square in the calibration band, from the two-sided spectrum of windowed frames.
    mean_square = 2 * (bins @ calibration).mean(-1) / (N_FFT * window.square().sum())  # (B,)
    gain = 1e7 / (mean_square + 1e-10)
    return (bins @ bands) * (POWER_SCALE * gain)[:, None, None]


def _loudness(power: Tensor, threshold: Tensor, gamma: Tensor) -> Tensor:
    ratio = (power / threshold).clamp(min=1)
    return LOUDNESS_SCALE * (threshold / 0.5).pow(gamma) * ((0.5 + 0.5 * ratio).pow(gamma) - 1)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Bins to bands (F, K); widths in Bark, thresholds, exponents (K,); bins of the calibration band (F,)."""
    frequency = torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * 16_000 / N_FFT
    bark = 7 * torch.asinh(frequency / 650)
    index = (bark / BAND_WIDTH).long()
    index = torch.unique(index, return_inverse=True)[1]  # low bands narrower than a bin are dropped
    index[0] = -1  # no band hears 0 Hz
    count = int(index.max()) + 1
    bands = (index[:, None] == torch.arange(count)).double()
    bands = bands[:, bands.sum(0) > 0]
    centre = (bands * frequency[:, None]).sum(0) / bands.sum(0)
    centre_bark = 7 * torch.asinh(centre / 650)
    edges = torch.cat([torch.zeros(1), (centre_bark[1:] + centre_bark[:-1]) / 2, bark[-1:]])
    kilohertz = (centre / 1000).clamp(min=0.03)
    decibel = 3.64 * kilohertz**-0.8 - 6.5 * torch.exp(-0.6 * (kilohertz - 3.3) ** 2) + 1e-3 * kilohertz**4
    threshold = 10 ** (decibel.clamp(max=60) / 10)
    raised = torch.where(centre_bark < 4, 6 / (centre_bark + 2), torch.ones_like(centre_bark)).clamp(max=2) ** 0.15
    in_band = ((frequency >= CALIBRATION[0]) & (frequency <= CALIBRATION[1])).double()
    tables = (bands, edges.diff(), threshold, 0.23 * raised, in_band)
    return tuple(t.float().to(device) for t in tables)  # type: ignore[return-value]
