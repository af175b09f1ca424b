"""Rooms: responses from files or made as decaying noise, and speech in them with its early part as target."""

from __future__ import annotations

import numpy as np


def simulate(rng: np.random.Generator, length: int, sample_rate: int, rt60: float | None = None) -> np.ndarray:
    """A response (length,): the direct sound at sample 0, sparse early reflections, an exponential tail.

    Reverberation time `rt60`, or 0.15 to 0.8 s; direct sound 3 to 15 dB above the sum of all else.
    """
    time = np.arange(length, dtype=np.float32) / sample_rate
    drawn = rng.uniform(0.15, 0.8)
    rt60 = drawn if rt60 is None else rt60
    tail = rng.standard_normal(length, dtype=np.float32) * np.exp(-6.9078 / rt60 * time)
    tail[: int(rng.uniform(0.002, 0.012) * sample_rate)] = 0
    early = int(0.05 * sample_rate)
    hits = rng.integers(int(0.002 * sample_rate), min(early, length), rng.integers(3, 10))
    tail[hits] += rng.standard_normal(len(hits)).astype(np.float32) * 4 * np.exp(-6.9078 / rt60 * time[hits])
    tail /= max(float(np.sqrt(tail @ tail)), 1e-12)
    tail *= 10 ** (-rng.uniform(-3, 15) / 20)
    tail[0] = 1.0
    return tail


def prepare(response: np.ndarray, length: int) -> np.ndarray:
    """A recorded response (any,) as (length,) float32 with its direct sound (the peak) moved to sample 0."""
    response = np.asarray(response, np.float32)
    response = response[int(np.argmax(np.abs(response))) :][:length]
    out = np.zeros(length, np.float32)
    out[: len(response)] = response
    if len(response) == length:
        out[-length // 8 :] *= np.linspace(1, 0, len(out[-length // 8 :]), dtype=np.float32)
    return out


def reverberate(
    speech: np.ndarray, response: np.ndarray, length: int, early_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """(reverberant, early), each (length,), of `speech` (length + len(response),) whose head is only past.

    `early` holds the direct sound and the reflections of the first `early_samples`, faded over their last
    fifth. The response is scaled to unit early energy, so that a room changes the level little.
    """
    size = len(speech)
    head = response[:early_samples].copy()
    fade = max(min(early_samples // 5, len(head)), 1)
    head[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    scale = 1 / max(float(np.sqrt(head @ head)), 1e-9)
    spectrum = np.fft.rfft(speech) * scale
    # circular, but the first len(response) samples, where the end wraps in, are cut off
    wet = np.fft.irfft(spectrum * np.fft.rfft(response, size), size)[-length:]
    early = np.fft.irfft(spectrum * np.fft.rfft(head, size), size)[-length:]
    return wet.astype(np.float32, copy=False), early.astype(np.float32, copy=False)
