"""Segmental SNR and the composite measures CSIG, CBAK, COVL (Hu & Loizou 2008), for 16 kHz signals.

They follow the script that CMGAN, MP-SENet and SEMamba publish with, including three habits of it that a reader
of the papers would not expect:
  - the PESQ that enters is wide-band MOS-LQO, with the regression weights fitted on narrow-band PESQ;
  - the WSS part divides float signals by 32768 once more, so its floor of 1e-10 acts on quiet bands;
  - the last full frame is not counted.
As in Hu & Loizou's own program every sample is raised by 2.2e-16, so that a digitally silent frame has a linear
prediction. Without it one such frame makes the LLR of the whole file undefined.

Letters: n samples, T frames, W window length, P prediction order, K critical bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from semamba.metrics.intrusive import MetricError, Signal, check_pair

Array = NDArray[np.float64]

SAMPLE_RATE = 16000
WINDOW = 480  # 30 ms
HOP = WINDOW // 4
N_FFT = 1024  # next power of two of 2 W
ORDER = 16
KEPT = 0.95  # share of the smallest LLR and WSS frame values that enter the mean
SNR_RANGE = (-10.0, 35.0)  # dB, per frame
EPS = np.spacing(1.0)  # 2.2e-16
BLOCK = 2048  # frames at a time, so that memory does not grow with length

# Centres and bandwidths of the critical bands in Hz (Klatt 1982, as used by Hu & Loizou).
CENTRES = (50.0, 120.0, 190.0, 260.0, 330.0, 400.0, 470.0, 540.0, 617.372, 703.378, 798.717, 904.128, 1020.38,
           1148.30, 1288.72, 1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17,
           3597.63)  # fmt: skip
WIDTHS = (70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423,
          153.823, 168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465,
          346.136)  # fmt: skip


def composite(clean: Signal, enhanced: Signal, pesq: float) -> dict[str, float]:
    """CSIG, CBAK, COVL (1 to 5) and segmental SNR (dB) of two (n,) signals at 16 kHz.

    `pesq` is their wide-band PESQ. Raises MetricError when the pair is too short.
    """
    segsnr, llr, wss = frame_measures(clean, enhanced)
    llr_mean, wss_mean = _mean_of_smallest(llr), _mean_of_smallest(wss)
    return {
        "csig": _rating(3.093 - 1.029 * llr_mean + 0.603 * pesq - 0.009 * wss_mean),
        "cbak": _rating(1.634 + 0.478 * pesq - 0.007 * wss_mean + 0.063 * float(segsnr.mean())),
        "covl": _rating(1.594 + 0.805 * pesq - 0.512 * llr_mean - 0.007 * wss_mean),
        "segsnr": float(segsnr.mean()),
    }


def segmental_snr(clean: Signal, enhanced: Signal) -> float:
    """Mean over 30-ms frames of the SNR clamped to -10..35 dB; signals (n,) at 16 kHz with samples in +-1."""
    frames = [_snr_frames(*block) for block in _blocks(clean, enhanced)]
    return float(np.concatenate(frames).mean())


def frame_measures(clean: Signal, enhanced: Signal) -> tuple[Array, Array, Array]:
    """Per-frame (segmental SNR in dB, log-likelihood ratio, weighted spectral slope), each of shape (T,)."""
    parts = [(_snr_frames(c, e), _llr_frames(c, e), _wss_frames(c, e)) for c, e in _blocks(clean, enhanced)]
    segsnr, llr, wss = (np.concatenate(column) for column in zip(*parts, strict=True))
    return segsnr, llr, wss


def _blocks(clean: Signal, enhanced: Signal) -> Iterator[tuple[Array, Array]]:
    """Pairs of windowed frames, each (up to BLOCK, W)."""
    clean, enhanced = (signal + EPS for signal in check_pair(clean, enhanced))
    count = (clean.size - WINDOW) // HOP
    if count < 1:
        raise MetricError(f"composite measures need at least {WINDOW + HOP} samples at 16 kHz, got {clean.size}")
    window = np.hanning(WINDOW + 2)[1:-1]
    views = [np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP] for signal in (clean, enhanced)]
    for start in range(0, count, BLOCK):
        part = slice(start, min(start + BLOCK, count))
        yield views[0][part] * window, views[1][part] * window


def _snr_frames(clean: Array, enhanced: Array) -> Array:
    """(T,) SNR in dB of windowed frames (T, W), clamped."""
    signal = np.sum(clean**2, axis=1)
    noise = np.sum((clean - enhanced) ** 2, axis=1)
    return np.clip(10.0 * np.log10(signal / (noise + EPS) + EPS), *SNR_RANGE)


def _llr_frames(clean: Array, enhanced: Array) -> Array:
    """(T,) log of how much worse the enhanced predictor fits the clean frame; NaN where none exists."""
    r_clean, r_enhanced = _autocorrelation(clean), _autocorrelation(enhanced)
    lags = np.abs(np.subtract.outer(np.arange(ORDER + 1), np.arange(ORDER + 1)))
    toeplitz = r_clean[:, lags]  # (T, P+1, P+1)
    errors = [
        np.einsum("ti,tij,tj->t", a, toeplitz, a, optimize=["einsum_path", (0, 1), (0, 1)])
        for a in (_prediction_filter(r_enhanced), _prediction_filter(r_clean))
    ]
    with np.errstate(all="ignore"):
        ratio = errors[0] / errors[1]
        return np.where(ratio > 0, np.log(ratio), np.nan)


def _autocorrelation(frames: Array) -> Array:
    """(T, P+1) lags of frames (T, W)."""
    size = frames.shape[1]
    return np.stack([np.einsum("tw,tw->t", frames[:, : size - k], frames[:, k:]) for k in range(ORDER + 1)], axis=1)


def _prediction_filter(r: Array) -> Array:
    """Levinson-Durbin on lags (T, P+1): prediction-error filter (T, P+1) with a leading 1."""
    a = np.zeros_like(r)
    a[:, 0] = 1.0
    error = r[:, 0].copy()
    with np.errstate(all="ignore"):  # NaN marks a frame without a prediction
        for i in range(1, ORDER + 1):
            reflection = -np.einsum("ti,ti->t", a[:, :i], r[:, i:0:-1]) / error
            a[:, : i + 1] += reflection[:, None] * a[:, i::-1]
            error *= 1.0 - reflection**2
    return a


def _wss_frames(clean: Array, enhanced: Array) -> Array:
    """(T,) weighted spectral slope distance of windowed frames (T, W)."""
    slope_c, weight_c = _slopes_and_weights(clean)
    slope_e, weight_e = _slopes_and_weights(enhanced)
    weight = weight_c + weight_e
    return np.sum(weight * (slope_c - slope_e) ** 2, axis=1) / np.sum(weight, axis=1)


def _slopes_and_weights(frames: Array) -> tuple[Array, Array]:
    """Slope between neighbouring critical bands in dB and its weight after Klatt, both (T, K-1)."""
    power = np.abs(np.fft.rfft(frames / 32768.0, N_FFT, axis=1)[:, : N_FFT // 2]) ** 2
    level = 10.0 * np.log10(np.maximum(power @ _band_filters().T, 1e-10))  # (T, K)
    slope = np.diff(level, axis=1)
    level_max = level.max(axis=1, keepdims=True)
    level, peak = level[:, :-1], _nearest_peak(level, slope)
    return slope, 20.0 / (20.0 + level_max - level) * 1.0 / (1.0 + peak - level)


def _nearest_peak(level: Array, slope: Array) -> Array:
    """(T, K-1) level at the peak that each slope leads to, searched upwards where it rises, else downwards.

    Upwards the search stops one band short of the peak, as in Hu & Loizou's program.
    """
    bands = slope.shape[1]
    upwards, downwards = level[:, :bands].copy(), level[:, :bands].copy()
    for k in range(1, bands):
        downwards[:, k] = np.where(slope[:, k - 1] <= 0, downwards[:, k - 1], level[:, k])
    for k in range(bands - 2, -1, -1):
        upwards[:, k] = np.where(slope[:, k + 1] > 0, upwards[:, k + 1], level[:, k])
    return np.where(slope > 0, upwards, downwards)


@cache
def _band_filters() -> Array:
    """(K, N_FFT/2) Gaussian critical-band filters, zero below -30 dB."""
    hz_per_bin = SAMPLE_RATE / N_FFT
    centre = np.floor(np.array(CENTRES) / hz_per_bin)[:, None]
    width = np.array(WIDTHS)[:, None]
    bins = np.arange(N_FFT // 2)
    filters = np.exp(-11.0 * ((bins - centre) * hz_per_bin / width) ** 2) * WIDTHS[0] / width
    return np.where(filters > np.exp(-30.0 / (2.0 * 2.303)), filters, 0.0)


def _mean_of_smallest(values: Array) -> float:
    """Mean of the smallest KEPT share of (T,) frame values; NaN sorts last and never enters."""
    kept = np.sort(values)[: round(values.size * KEPT)]
    kept = kept[np.isfinite(kept)]
    if kept.size == 0:
        raise MetricError("composite measures failed: no frame could be measured")
    return float(kept.mean())


def _rating(value: float) -> float:
    return float(min(5.0, max(1.0, value)))
