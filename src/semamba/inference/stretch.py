"""Contrast stretching of a signal without end, at the level it had.

`pcs.stretch` restores the RMS of the whole signal, which is known only at its end. Here the first minute decides at
once (so any signal up to a minute gets exactly what `pcs.stretch` gives); after that the RMS of all so far does,
second by second.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semamba import pcs

Samples = npt.NDArray[np.float32]

_RATE = 16_000
FIRST = 60 * _RATE  # samples held back before the first decision
STEP = _RATE  # samples between later decisions


class LevelledStretcher:
    """`push` and `finish` as in pcs.Stretcher, with the level of each channel kept."""

    def __init__(self, channels: int) -> None:
        self._stretcher = pcs.Stretcher(channels)
        self._before = np.zeros((channels, 1))  # energy so far, into the stretcher
        self._after = np.zeros((channels, 1))  # and out of it, up to the last decision
        self._waiting = np.zeros((channels, 0), np.float32)
        self._input = np.zeros((channels, 0), np.float32)  # of the same time as `_waiting` and what the stretcher holds
        self._gain: npt.NDArray[np.float64] | None = None

    def push(self, block: Samples) -> Samples:
        """(C, k) -> (C, m)."""
        self._input = np.concatenate([self._input, block], axis=1)
        self._waiting = np.concatenate([self._waiting, self._stretcher.push(block)], axis=1)
        done = [self._waiting[:, :0]]
        while self._waiting.shape[1] >= (count := FIRST if self._gain is None else STEP):
            done.append(self._decide(count))
        return np.concatenate(done, axis=1)

    def finish(self) -> Samples:
        """The rest, so that as many samples came out as went in."""
        self._waiting = np.concatenate([self._waiting, self._stretcher.finish()], axis=1)
        return self._decide(self._waiting.shape[1])

    def _decide(self, count: int) -> Samples:
        """Scale the next `count` samples by the gain that their energy and all energy before ask for."""
        wave, self._waiting = self._waiting[:, :count], self._waiting[:, count:].copy()
        self._before = self._before + pcs.energy(self._input[:, :count])
        self._after = self._after + pcs.energy(wave)
        self._input = self._input[:, count:].copy()
        gain = pcs.level_gain(self._before, self._after)  # (C, 1)
        old = gain if self._gain is None else self._gain
        self._gain = gain
        ramp = np.arange(1, count + 1) / max(1, count)
        return (wave * (old + (gain - old) * ramp)).astype(np.float32)
