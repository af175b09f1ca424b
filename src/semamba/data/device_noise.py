"""Noise made by rule for many rows at once on a device: the kinds of `data.noise`, with the same ranges.

Letters: n rows, L samples, K harmonics or hits. Every maker has the signature (draws, n, length, sample_rate) -> (n, L)
at an arbitrary level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.data import filters, noise
from semamba.data.draws import Draws

Maker = Callable[[Draws, int, int, int], Tensor]
_FIXED = 1 << 20  # of a fixed-point number: sums of integers do not depend on the order of their terms


def make(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    """One noise of a random kind in each row, (n, length), with unit RMS."""
    kinds = draws.host.integers(len(noise.MAKERS), size=n)
    names = np.array([maker.__name__ for maker in noise.MAKERS])[kinds]
    out = torch.zeros(n, length, device=draws.device)
    for name, maker in _BATCHED.items():
        chosen = names == name
        if chosen.any():
            out[draws.rows(chosen)] = maker(draws, int(chosen.sum()), length, sample_rate)
    return out / rms(out).clamp(min=1e-9)


def rms(x: Tensor) -> Tensor:
    """(n, L) -> (n, 1)."""
    return x.square().mean(-1, keepdim=True).sqrt()


def equaliser(draws: Draws, chosen: np.ndarray, length: int, sample_rate: int, spread_db: float) -> Tensor:
    """Gains (n, length // 2 + 1) as of `filters.random_equaliser` for the chosen rows, 1 for the others."""
    weights = _knot_weights(length, sample_rate, draws.device)
    gains = draws.normal(len(chosen), weights.shape[0]).clamp(-3, 3) * spread_db
    return from_db(gains * draws.send(chosen).float()[:, None] @ weights)


@lru_cache(maxsize=8)
def _knot_weights(length: int, sample_rate: int, device: torch.device) -> Tensor:
    """(knots, bins): linear interpolation between the knots of the equaliser as a matrix."""
    knots = np.log(filters.KNOTS_HZ)
    place = filters.log_frequency(length, sample_rate)
    return torch.tensor(np.stack([np.interp(place, knots, row) for row in np.eye(len(knots))])).float().to(device)


def from_db(gain_db: Tensor) -> Tensor:
    return torch.exp(gain_db * (math.log(10) / 20))


def spectral_noise(draws: Draws, magnitude: Tensor, length: int) -> Tensor:
    """Gaussian noise (n, length) whose spectra have the given envelopes (n, length // 2 + 1)."""
    return torch.fft.irfft(torch.view_as_complex(draws.normal(*magnitude.shape, 2)) * magnitude, length)


def wander(draws: Draws, n: int, length: int, sample_rate: int, spread_db: float) -> Tensor:
    """Gains (n, length) that move smoothly, about three times a second."""
    knots = draws.normal(n, 1, max(3 * length // sample_rate, 1) + 1) * spread_db
    return from_db(F.interpolate(knots, length, mode="linear", align_corners=True)[:, 0])


def coloured(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    bins = length // 2 + 1
    index = torch.arange(bins, device=draws.device).clamp(min=max(30 * length / sample_rate, 1))
    slope = draws.uniform(-9, 3, n, 1) / 6.02
    shape = equaliser(draws, np.ones(n, bool), length, sample_rate, 4.0)
    return spectral_noise(draws, shape * index**slope, length)


def modulated(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    x = coloured(draws, n, length, sample_rate)
    time = _time(draws, length, sample_rate)
    phase = 2 * math.pi * draws.log_uniform(0.5, 30, n, 1) * time + draws.uniform(0, 6.28, n, 1)
    beat = (0.55 + 0.45 * torch.sin(phase)) ** draws.uniform(0.5, 4, n, 1)
    beats = draws.send(draws.chance(0.5, n))[:, None]
    return x * torch.where(beats, beat, wander(draws, n, length, sample_rate, 8.0))


def hum(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    base = draws.send(draws.host.choice((50.0, 60.0), (n, 1))).float() * draws.uniform(0.998, 1.002, n, 1)
    cycles = base.double() * _time(draws, length, sample_rate).double()
    x = _harmonics(draws, base, cycles, draws.host.integers(2, 16, (n, 1)), 16, (0.3, 1.5), sample_rate)
    return x + 10 ** draws.uniform(-2.5, -0.7, n, 1) * draws.normal(n, length)


def engine(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    base = draws.log_uniform(25, 250, n, 1)
    cycles = base.double() * _drifting_time(draws, n, length, sample_rate, 0.05)
    x = _harmonics(draws, base, cycles, draws.host.integers(4, 20, (n, 1)), 20, (0.3, 1.3), sample_rate)
    rumble = coloured(draws, n, length, sample_rate)
    return x + rumble * rms(x) / (rms(rumble) + 1e-9) * 10 ** draws.uniform(-1.2, 0.2, n, 1)


def _drifting_time(draws: Draws, n: int, length: int, sample_rate: int, drift: float) -> Tensor:
    """(n, L) float64 seconds on a clock whose speed wanders about 1: the integral of lines between random knots."""
    knots = max(2 * length // sample_rate, 1) + 1
    curve = draws.host.standard_normal((n, knots))
    segment = (length - 1) / (knots - 1)  # samples
    before = np.concatenate([np.zeros((n, 1)), np.cumsum((curve[:, 1:] + curve[:, :-1]) / 2, 1)], 1) * segment
    t = torch.arange(length, device=draws.device, dtype=torch.float64)
    k = (t / segment).long().clamp(max=knots - 2)
    part = t - k * segment
    left, right, past = (draws.send(a)[:, i] for a, i in ((curve, k), (curve, k + 1), (before, k)))
    return (t + drift * (past + left * part + (right - left) * part.square() / (2 * segment))) / sample_rate


def _harmonics(
    draws: Draws,
    base: Tensor,
    cycles: Tensor,
    counts: np.ndarray,
    most: int,
    fall: tuple[float, float],
    sample_rate: int,
) -> Tensor:
    """Harmonics of `base` (n, 1) Hz; cycles (n, L) float64 of the first one, counts (n, 1), the k-th about k^-fall."""
    n = base.shape[0]
    k = torch.arange(1, most + 1, device=base.device)
    allowed = torch.minimum(draws.send(counts), (0.45 * sample_rate / base).long()).clamp(min=1)
    weights = k ** -draws.uniform(*fall, n, 1) * draws.uniform(0.2, 1, n, most) * (k <= allowed)
    phase = draws.uniform(0, 2 * math.pi, n, most)
    angle = (2 * math.pi * torch.frac(cycles)).float()
    total = torch.zeros_like(angle)
    for i in range(most):
        total += weights[:, i : i + 1] * torch.cos((i + 1) * angle + phase[:, i : i + 1])
    return total


def tones(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    time = _time(draws, length, sample_rate)
    counts = draws.host.integers(1, 4, n)
    x = 0.003 * draws.normal(n, length)
    for i in range(3):
        tone = torch.sin(2 * math.pi * draws.log_uniform(200, 6000, n, 1) * time + draws.uniform(0, 6.28, n, 1))
        gate = torch.sin(2 * math.pi * draws.uniform(0.5, 6, n, 1) * time + draws.uniform(0, 6.28, n, 1))
        gated = draws.send(draws.chance(0.6, n))[:, None]
        tone = tone * torch.where(gated, (gate * 40 + 0.5).clamp(0, 1), torch.ones_like(gate))
        x += tone * draws.uniform(0.2, 1, n, 1) * draws.send(counts > i)[:, None]
    return x


def chirps(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    low, high = draws.log_uniform(300, 7000, n, 2).sort(-1).values.double().split(1, -1)
    span, pause = draws.host.uniform(0.05, 1.0, (n, 1)), draws.host.uniform(0.0, 0.6, (n, 1))
    period, sweep = ((span + pause) * sample_rate).astype(np.int64), (span * sample_rate).astype(np.int64)
    offset = draws.send((draws.host.random((n, 1)) * period).astype(np.int64))
    place = (torch.arange(length, device=draws.device) + offset) % draws.send(period)
    size = draws.send(sweep).double()
    down = draws.send(draws.chance(0.5, n))[:, None]
    start, slope = torch.where(down, high, low), torch.where(down, low - high, high - low)
    t = place.double()
    cycles = torch.frac((start * t + slope * t.square() / (2 * size)) / sample_rate)
    one = torch.sin(2 * math.pi * cycles.float()) * torch.sin(math.pi * (t / size).float())
    return one * (place < size) + 0.003 * draws.normal(n, length)


def clicks(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    size = int(0.03 * sample_rate)
    time = _time(draws, size, sample_rate)
    hits = (draws.host.uniform(2, 25, n) * length / sample_rate).astype(np.int64) + 1
    most = int(hits.max())
    starts = draws.send(draws.host.integers(0, max(length - size, 1), (n, most)))
    ring = draws.uniform(0, 1, n, 1, 1)
    hertz = draws.log_uniform(300, 6000, n, 1, 1) * draws.uniform(0.8, 1.25, n, most, 1)
    burst = draws.normal(n, most, size) * (1 - ring) + ring * torch.sin(2 * math.pi * hertz * time)
    burst *= torch.exp(-time / draws.uniform(0.0005, 0.008, n, 1, 1)) * 10 ** draws.uniform(-1, 0, n, most, 1)
    burst *= draws.send(np.arange(most) < hits[:, None])[:, :, None]
    places = (starts[:, :, None] + torch.arange(size, device=draws.device)).flatten(1)
    sums = torch.zeros(n, length + size, dtype=torch.int32, device=draws.device)
    sums.scatter_add_(1, places, (burst * _FIXED).round().to(torch.int32).flatten(1))
    return sums[:, :length].float() / _FIXED + 0.002 * draws.normal(n, length)


def _time(draws: Draws, length: int, sample_rate: int) -> Tensor:
    return torch.arange(length, device=draws.device) / sample_rate


_BATCHED: dict[str, Maker] = {
    maker.__name__: maker for maker in (coloured, modulated, hum, engine, tones, chirps, clicks)
}
