"""Sample-rate conversion through soxr, whole or in blocks, with lengths under control."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


def resample(wave: Samples, rate_in: float, rate_out: float, length: int | None = None) -> Samples:
    """(..., n) at `rate_in` Hz -> (..., length) at `rate_out` Hz; length defaults to round(n * rate_out / rate_in)."""
    wave = np.asarray(wave, dtype=np.float32)
    if length is None:
        length = round(wave.shape[-1] * rate_out / rate_in)
    if wave.size == 0:
        return np.zeros((*wave.shape[:-1], length), np.float32)
    flat = wave.reshape(-1, wave.shape[-1])
    stream = StreamResampler(flat.shape[0], rate_in, rate_out)
    result = np.concatenate([stream.push(flat), stream.finish(length)], axis=1)[:, :length]
    return result.reshape(*wave.shape[:-1], length)


class StreamResampler:
    """The same in blocks: `push` returns what is ready, `finish(length)` the rest, so that `length` came out in all.

    Output sample 0 lies at input sample 0 (soxr's delay shows only in when samples come out, not where they lie).
    """

    def __init__(self, channels: int, rate_in: float, rate_out: float) -> None:
        self._channels = channels
        self._given = 0
        self._stream: Any = None
        if rate_in != rate_out and channels:
            import soxr

            self._stream = soxr.ResampleStream(rate_in, rate_out, channels, dtype="float32", quality="HQ")

    def push(self, block: Samples) -> Samples:
        """(channels, k) -> (channels, m); m may be 0."""
        if self._stream is not None:
            block = self._convert(block, last=False)
        self._given += block.shape[1]
        return block

    def finish(self, length: int) -> Samples:
        """The remaining samples; zeros where the resampler ends a sample early, surplus is cut."""
        rest = np.zeros((self._channels, 0), np.float32)
        if self._stream is not None:
            rest = self._convert(rest, last=True)
        missing = max(0, length - self._given)
        return np.pad(rest[:, :missing], ((0, 0), (0, max(0, missing - rest.shape[1]))))

    def _convert(self, block: Samples, last: bool) -> Samples:
        interleaved = np.ascontiguousarray(block.T, dtype=np.float32)
        return np.ascontiguousarray(self._stream.resample_chunk(interleaved, last=last).reshape(-1, self._channels).T)
