"""Filters of the mixer, all applied as one multiplication of the spectrum of a whole crop.

They are zero-phase, so what is filtered stays aligned sample by sample. The convolution is circular:
the few samples that wrap around the crop's ends wrap in mixture and target alike.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

KNOTS_HZ = np.geomspace(60.0, 8000.0, 9)


def resample_filter(x: np.ndarray, length: int, response: np.ndarray | None = None) -> np.ndarray:
    """Stretch `x` (m,) to (`length`,) by its spectrum (band-limited, speed and pitch change by m / length)
    and multiply with `response` (length // 2 + 1,)."""
    m = len(x)
    spectrum = np.fft.rfft(x)[: length // 2 + 1]
    if response is not None:
        spectrum *= response[: len(spectrum)]
    y = np.fft.irfft(spectrum, length)
    if m != length:
        y *= length / m
    return y.astype(np.float32, copy=False)


def random_equaliser(rng: np.random.Generator, length: int, sample_rate: int, spread_db: float) -> np.ndarray:
    """A smooth random gain (length // 2 + 1,): nine knots over the logarithmic frequency axis, standard
    deviation `spread_db`, never beyond three of them."""
    gains = np.clip(rng.standard_normal(len(KNOTS_HZ)), -3, 3) * spread_db
    return _from_db(np.interp(log_frequency(length, sample_rate), np.log(KNOTS_HZ), gains).astype(np.float32))


def low_pass(length: int, sample_rate: int, cutoff: float) -> np.ndarray:
    """Gain (length // 2 + 1,) that falls by 60 dB within an eighth above `cutoff` (Hz)."""
    octaves_over = (log_frequency(length, sample_rate) - np.log(cutoff)) / np.log(1.125)
    return _from_db(-60 * np.clip(octaves_over, 0, 1).astype(np.float32))


@lru_cache(maxsize=16)
def smooth_sizes(low: int, high: int) -> np.ndarray:
    """The transform sizes in [low, high] with no prime factor above 5, which the FFT does fastest."""
    sizes = [
        2**a * 3**b * 5**c
        for a in range(1, high.bit_length())
        for b in range(high.bit_length())
        for c in range(high.bit_length())
        if low <= 2**a * 3**b * 5**c <= high
    ]
    return np.array(sorted(sizes) or [low])


@lru_cache(maxsize=16)
def log_frequency(length: int, sample_rate: int) -> np.ndarray:
    """Logarithm of the frequency of every bin (length // 2 + 1,), of bin 1 for bin 0."""
    hertz = np.fft.rfftfreq(length, 1 / sample_rate)
    return np.log(np.maximum(hertz, hertz[1])).astype(np.float32)


def _from_db(gain_db: np.ndarray) -> np.ndarray:
    return np.exp(gain_db * np.float32(np.log(10) / 20))
