"""Noise made by rule, beside the recorded: coloured, modulated, hum, tones, chirps, clicks, engines.

Every maker has the signature (rng, length, sample_rate) -> float32 (length,) at an arbitrary level.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semamba.data.filters import random_equaliser

Maker = Callable[[np.random.Generator, int, int], np.ndarray]


def make(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """One noise of a random kind, float32 (length,), with unit RMS."""
    x = MAKERS[int(rng.integers(len(MAKERS)))](rng, length, sample_rate)
    return x * np.float32(1 / max(float(np.sqrt(np.mean(np.square(x)))), 1e-9))


def coloured(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """Stationary noise with a slope of -9 to +3 dB an octave and a smooth random spectrum on top."""
    bins = length // 2 + 1
    shape = random_equaliser(rng, length, sample_rate, 4.0)
    slope = rng.uniform(-9, 3) / 6.02  # of the amplitude, as a power of the frequency
    index = np.maximum(np.arange(bins, dtype=np.float32), max(30 * length / sample_rate, 1))
    return spectral_noise(rng, shape * index ** np.float32(slope), length)


def speech_shaped(rng: np.random.Generator, speech: np.ndarray) -> np.ndarray:
    """Stationary noise with the spectrum of `speech` (n,)."""
    return spectral_noise(rng, np.abs(np.fft.rfft(speech)), len(speech))


def modulated(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """Coloured noise whose level beats (fan, steps, wheels) or wanders (wind, traffic)."""
    x = coloured(rng, length, sample_rate)
    if rng.random() < 0.5:
        rate = np.exp(rng.uniform(np.log(0.5), np.log(30)))
        phase = np.arange(length, dtype=np.float32) * np.float32(2 * np.pi * rate / sample_rate)
        power = np.float32(rng.uniform(0.5, 4))
        return x * (0.55 + 0.45 * np.sin(phase + np.float32(rng.uniform(0, 6.28)))) ** power
    return x * wander(rng, length, sample_rate, spread_db=8.0)


def hum(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """Mains hum of 50 or 60 Hz with falling harmonics and a little hiss."""
    base = rng.choice((50.0, 60.0)) * rng.uniform(0.998, 1.002)
    x = _harmonics(rng, length, sample_rate, base, count=int(rng.integers(2, 16)), fall=rng.uniform(0.3, 1.5))
    return x + np.float32(10 ** rng.uniform(-2.5, -0.7)) * rng.standard_normal(length, dtype=np.float32)


def engine(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """A slowly wandering low tone with harmonics (motor, fan, drill) over rumble."""
    base = np.exp(rng.uniform(np.log(25), np.log(250)))
    x = _harmonics(rng, length, sample_rate, base, int(rng.integers(4, 20)), rng.uniform(0.3, 1.3), drift=0.05)
    rumble = coloured(rng, length, sample_rate)
    rumble *= _rms(x) / (_rms(rumble) + np.float32(1e-9)) * np.float32(10 ** rng.uniform(-1.2, 0.2))
    return x + rumble


def tones(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """One to three steady or beeping tones between 200 Hz and 6 kHz."""
    time = np.arange(length, dtype=np.float32) / np.float32(sample_rate)
    x = np.zeros(length, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        hertz = np.exp(rng.uniform(np.log(200), np.log(6000)))
        tone = np.sin(np.float32(2 * np.pi * hertz) * time + np.float32(rng.uniform(0, 6.28)))
        if rng.random() < 0.6:
            gate = np.sin(np.float32(2 * np.pi * rng.uniform(0.5, 6)) * time + np.float32(rng.uniform(0, 6.28)))
            tone *= np.clip(gate * 40 + 0.5, 0, 1)
        x += np.float32(rng.uniform(0.2, 1)) * tone
    return x + np.float32(0.003) * rng.standard_normal(length, dtype=np.float32)


def chirps(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """Repeated sweeps, as of birds, sirens and alarms."""
    x = 0.003 * rng.standard_normal(length, dtype=np.float32)
    low, high = np.sort(np.exp(rng.uniform(np.log(300), np.log(7000), 2)))
    span, pause = rng.uniform(0.05, 1.0), rng.uniform(0.0, 0.6)
    period, sweep = int((span + pause) * sample_rate), int(span * sample_rate)
    ramp = np.arange(sweep, dtype=np.float32) / np.float32(sweep)
    if rng.random() < 0.5:
        ramp = ramp[::-1]
    phase = np.cumsum(low + (high - low) * ramp, dtype=np.float64) * (2 * np.pi / sample_rate)
    one = (np.sin(phase) * np.sin(np.pi * np.arange(sweep) / sweep)).astype(np.float32)
    start = -int(rng.integers(period))
    while start < length:
        first, last = max(start, 0), min(start + sweep, length)
        if last > first:
            x[first:last] += one[first - start : last - start]
        start += period
    return x


def clicks(rng: np.random.Generator, length: int, sample_rate: int) -> np.ndarray:
    """Keyboard, cutlery and crackle: decaying resonant bursts at random times over faint hiss."""
    x = 0.002 * rng.standard_normal(length, dtype=np.float32)
    size = int(0.03 * sample_rate)
    time = np.arange(size, dtype=np.float32) / np.float32(sample_rate)
    hits = int(rng.uniform(2, 25) * length / sample_rate) + 1
    decay, hertz = rng.uniform(0.0005, 0.008), np.exp(rng.uniform(np.log(300), np.log(6000)))
    ring = rng.uniform(0, 1)
    for start in rng.integers(0, max(length - size, 1), hits):
        burst = rng.standard_normal(size, dtype=np.float32) * np.float32(1 - ring)
        burst += np.float32(ring) * np.sin(np.float32(2 * np.pi * hertz * rng.uniform(0.8, 1.25)) * time)
        burst *= np.exp(-time / np.float32(decay)) * np.float32(10 ** rng.uniform(-1, 0))
        x[start : start + size] += burst[: length - start]
    return x


MAKERS: tuple[Maker, ...] = (coloured, coloured, modulated, modulated, hum, engine, tones, chirps, clicks, clicks)


def spectral_noise(rng: np.random.Generator, magnitude: np.ndarray, length: int) -> np.ndarray:
    """Gaussian noise (length,) whose spectrum has the given envelope (length // 2 + 1,)."""
    parts = rng.standard_normal((len(magnitude), 2), dtype=np.float32)
    spectrum = parts.view(np.complex64)[:, 0] * magnitude.astype(np.float32, copy=False)
    return np.fft.irfft(spectrum, length).astype(np.float32, copy=False)


def wander(rng: np.random.Generator, length: int, sample_rate: int, spread_db: float) -> np.ndarray:
    """A gain (length,) that moves smoothly, about three times a second, with the given standard deviation."""
    knots = max(3 * length // sample_rate, 1) + 1
    gain_db = np.interp(np.linspace(0, knots - 1, length), np.arange(knots), rng.standard_normal(knots) * spread_db)
    return np.exp(gain_db.astype(np.float32) * np.float32(np.log(10) / 20))


def _harmonics(
    rng: np.random.Generator,
    length: int,
    sample_rate: int,
    base: float,
    count: int,
    fall: float,
    drift: float = 0.0,
) -> np.ndarray:
    """Harmonics of `base` Hz, the k-th scaled by about k^-fall; `drift` is the relative wander of the pitch."""
    count = max(min(count, int(0.45 * sample_rate / base)), 1)
    frequency = np.full(length, base)
    if drift:
        knots = max(2 * length // sample_rate, 1) + 1
        curve = np.interp(np.linspace(0, knots - 1, length), np.arange(knots), rng.standard_normal(knots))
        frequency = base * (1 + drift * curve)
    turn = np.exp(2j * np.pi / sample_rate * np.cumsum(frequency)).astype(np.complex64)
    weights = (np.arange(1, count + 1) ** -fall * rng.uniform(0.2, 1, count)).astype(np.float32)
    weights = weights * np.exp(1j * rng.uniform(0, 2 * np.pi, count)).astype(np.complex64)
    total = np.full(length, weights[-1], np.complex64)
    for weight in weights[-2::-1]:  # Horner: one complex product a harmonic instead of one sine
        total *= turn
        total += weight
    return (total * turn).real


def _rms(x: np.ndarray) -> np.float32:
    return np.float32(np.sqrt(np.mean(np.square(x))))
