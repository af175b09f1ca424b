"""Sample-rate conversion, whole (soxr) or in blocks with a short delay that is known (polyphase filter)."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

# Of the lower rate's Nyquist frequency: what passes, and from where on nothing does. At 48 kHz that is 7.2 and 8 kHz.
_PASS, _STOP, _ATTENUATION = 0.9, 1.0, 90.0  # the last in dB
_PHASES = 2048  # more than these are interpolated from these, to an error of 3e-7 (pi / 2048 squared, over 8)
_SEGMENT, _MATRIX = 64, 1 << 20  # outputs of one row of a matrix product at least; entries of its matrix at most
_ROWS = 1024  # outputs that are gathered at once


def resample(wave: Samples, rate_in: float, rate_out: float, length: int | None = None, quality: str = "HQ") -> Samples:
    """(..., n) at `rate_in` Hz -> (..., length) at `rate_out` Hz; length defaults to round(n * rate_out / rate_in).

    `quality` is soxr's: HQ is exact to 20 bits, VHQ to 28.
    """
    wave = np.asarray(wave, dtype=np.float32)
    if length is None:
        length = round(wave.shape[-1] * rate_out / rate_in)
    if wave.size == 0:
        return np.zeros((*wave.shape[:-1], length), np.float32)
    flat = wave.reshape(-1, wave.shape[-1])
    if rate_in != rate_out:
        import soxr

        flat = soxr.resample(np.ascontiguousarray(flat.T), rate_in, rate_out, quality=quality).T
    missing = max(0, length - flat.shape[1])
    result = np.pad(flat[:, :length], ((0, 0), (0, missing)))
    return np.ascontiguousarray(result).reshape(*wave.shape[:-1], length)


class StreamResampler:
    """In blocks: `push` returns what is ready, `finish(length)` the rest, so that `length` came out in all.

    A windowed sinc, cut into phases. Output sample j lies at input sample j * rate_in / rate_out, and needs `reach`
    input samples after it, not one more: how much is ready depends on how much went in, not on the blocks. A streaming
    FFT filter such as soxr's needs less arithmetic, and lets 37 to 118 ms pass at common rates.
    """

    def __init__(self, channels: int, rate_in: int, rate_out: int) -> None:
        self._filter = _design(rate_in, rate_out)
        self._given = self._taken = 0
        self.reach = self._filter.reach
        # Input from sample `_first` on; what lies before the start is silence.
        self._input = np.zeros((channels, max(0, self.reach - 1)), np.float32)
        self._first = -self._input.shape[1]

    def ready(self, taken: Counts) -> Counts:
        """How many samples have come out when `taken` have gone in."""
        f = self._filter
        return np.maximum(0, -(-(taken - f.reach) * f.up // f.down))

    def push(self, block: Samples) -> Samples:
        """(channels, k) -> (channels, m); m may be 0."""
        self._taken += block.shape[1]
        if self._filter.plain:
            self._given += block.shape[1]
            return block
        self._input = np.concatenate([self._input, block], axis=1)
        f, reach = self._filter, self.reach
        count = max(0, -(-(self._taken - reach) * f.up // f.down) - self._given)
        if not count:
            return block[:, :0]
        result = f.apply(self._input, self._given, count, self._first)
        self._given += count
        keep = self._given * f.down // f.up - reach + 1  # where the window of the next output begins
        self._input, self._first = self._input[:, keep - self._first :].copy(), keep
        return result

    def finish(self, length: int) -> Samples:
        """The remaining samples: silence follows the end, surplus is cut."""
        missing = max(0, length - self._given)
        if self._filter.plain:
            return np.zeros((self._input.shape[0], missing), np.float32)
        silence = max(0, (length - 1) * self._filter.down // self._filter.up + 1 + self.reach - self._taken)
        return self.push(np.zeros((self._input.shape[0], silence), np.float32))[:, :missing]


class _Filter:
    """Windowed-sinc interpolation from one rate to another: `up` outputs for each `down` inputs."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        divisor = math.gcd(rate_in, rate_out)
        self.up, self.down = rate_out // divisor, rate_in // divisor
        self.plain = rate_in == rate_out
        self.reach = 0
        if self.plain:
            return
        low = min(rate_in, rate_out) / 2
        # Kaiser & Schafer 1980: length of a filter by attenuation and width of the transition.
        half = (_ATTENUATION - 8) / (2.285 * 4 * math.pi * (_STOP - _PASS) * low)  # seconds
        self.reach = math.ceil(half * rate_in)
        self.phases = min(self.up, _PHASES)
        shift = np.arange(self.phases + 1)[:, None] / self.phases  # of an output behind an input sample
        offset = (np.arange(1 - self.reach, self.reach + 1)[None] - shift) / rate_in  # seconds, (phases + 1, taps)
        cutoff = (_PASS + _STOP) * low
        beta = 0.1102 * (_ATTENUATION - 8.7)
        window = np.i0(beta * np.sqrt(np.maximum(0, 1 - (offset / half) ** 2))) * (np.abs(offset) <= half)
        taps = np.sinc(cutoff * offset) * window
        self.taps = (taps / taps.sum(1, keepdims=True)).astype(np.float32)
        repeats = -(-_SEGMENT // self.up)
        self.outputs, self.inputs = self.up * repeats, self.down * repeats
        self.span = (self.outputs - 1) * self.down // self.up + 2 * self.reach
        fits = self.up <= _PHASES and self.outputs * self.span <= _MATRIX
        self.matrix = self._segment_matrix() if fits else None

    def _segment_matrix(self) -> Samples:
        """(span, outputs): a whole number of periods at once, as one matrix product."""
        matrix = np.zeros((self.span, self.outputs), np.float32)
        for j in range(self.outputs):
            start, phase = divmod(j * self.down, self.up)
            matrix[start : start + 2 * self.reach, j] = self.taps[phase]
        return matrix

    def apply(self, wave: Samples, start: int, count: int, first: int) -> Samples:
        """Outputs [start, start + count) from `wave`, whose first sample is number `first`."""
        result = np.empty((wave.shape[0], count), np.float32)
        done = 0
        if self.matrix is not None:
            head = -start % self.up
            segments = (count - head) // self.outputs
            if segments > 0:
                self._gather(wave, start, result[:, :head], first)
                done = head + segments * self.outputs
                origin = (start + head) * self.down // self.up - self.reach + 1 - first
                rows = np.lib.stride_tricks.sliding_window_view(wave[:, origin:], self.span, axis=1)
                pieces = np.ascontiguousarray(rows[:, :: self.inputs][:, :segments])
                result[:, head:done] = (pieces @ self.matrix).reshape(wave.shape[0], -1)
        for begin in range(done, count, _ROWS):
            self._gather(wave, start + begin, result[:, begin : begin + _ROWS], first)
        return result

    def _gather(self, wave: Samples, start: int, result: Samples, first: int) -> None:
        if not result.shape[1]:
            return
        place, phase = np.divmod(np.arange(start, start + result.shape[1]) * self.down, self.up)
        if self.up == self.phases:
            taps = self.taps[phase]
        else:
            share, index = np.modf(phase * (self.phases / self.up))
            at, share = index.astype(np.int64), share[:, None].astype(np.float32)
            taps = self.taps[at] * (1 - share) + self.taps[at + 1] * share
        windows = np.lib.stride_tricks.sliding_window_view(wave, 2 * self.reach, axis=1)
        np.einsum("cnk,nk->cn", windows[:, place - self.reach + 1 - first], taps, out=result)


@functools.lru_cache(maxsize=16)
def _design(rate_in: int, rate_out: int) -> _Filter:
    return _Filter(rate_in, rate_out)
