"""The whole way of a signal of any rate through a model, in blocks: memory does not grow with length.

Files and arrays take the same way, so that they get the same result.
Letters: C channels, k samples of a block at the rate of the signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from semamba.audio import StreamResampler
from semamba.errors import SemambaError
from semamba.inference.bands import HOP, GainCurve, GainTrack
from semamba.inference.stretch import LevelledStretcher

Samples = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

SAMPLE_RATE = 16_000  # of every model, in Hz


class Core(Protocol):
    """A model as a stage: samples at 16 kHz in, as many out, later."""

    causal: bool  # needs no future beyond a window
    hop: int  # results come in multiples of this
    replaced: int  # samples for which the model gave no finite number and the input was kept

    def push(self, block: Samples) -> Samples:
        """(C, k) -> (C, m): what is finished."""
        ...

    def finish(self) -> Samples:
        """The rest, so that as many samples came out as went in."""
        ...

    def ready(self, taken: Counts) -> Counts:
        """How many samples have come out when `taken` have gone in, in blocks of any size."""
        ...


@dataclass(frozen=True)
class Options:
    """How much of the enhancement is wanted. Raises SemambaError for values out of range."""

    pcs: bool = False  # perceptual contrast stretching after the model
    attenuation_limit: float | None = None  # dB by which noise may fall at most; None: no limit
    mix: float = 1.0  # share of the enhanced signal, 0 to 1; the rest is the input
    bandwidth: Literal["full", "model"] = "full"  # "model" drops what lies above 8 kHz
    chunk_seconds: float | None = None  # for models that need the future; None: what suits the model

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1:
            raise SemambaError(f"mix must lie between 0 (input) and 1 (enhanced), got {self.mix}")
        if self.attenuation_limit is not None and not self.attenuation_limit >= 0:
            raise SemambaError(f"the attenuation limit is a number of dB, 0 or more, got {self.attenuation_limit}")
        if self.bandwidth not in ("full", "model"):
            raise SemambaError(f"bandwidth must be 'full' or 'model', got '{self.bandwidth}'")
        if self.chunk_seconds is not None and not 0.5 <= self.chunk_seconds < math.inf:
            raise SemambaError(f"chunk_seconds must be at least 0.5, got {self.chunk_seconds}")

    @property
    def wet(self) -> float:
        """Share of the enhanced signal when mix and limit are taken together."""
        limit = self.attenuation_limit
        return self.mix * (1 - (0.0 if limit is None else 10 ** (-limit / 20)))


class Engine:
    """A core with everything around it: `push(block)` any number of times, then `finish()`.

    In all as many samples come out as went in. `invalid` counts input samples that were NaN or infinite (taken as 0),
    `replaced` those the model failed on.
    """

    def __init__(self, core: Core, channels: int, sample_rate: int, options: Options) -> None:
        if sample_rate <= 0:
            raise SemambaError(f"the sample rate must be above 0 Hz, got {sample_rate}")
        self.invalid = 0
        self._wet, self._rate = options.wet, sample_rate
        self._core = core
        self._down = StreamResampler(channels, sample_rate, SAMPLE_RATE)
        self._up = StreamResampler(channels, SAMPLE_RATE, sample_rate)
        self._stretch = LevelledStretcher(channels) if options.pcs else None
        wide = sample_rate > SAMPLE_RATE
        self._track = GainTrack(channels) if wide and options.bandwidth == "full" else None
        self._curve = GainCurve(channels, sample_rate)
        self._blend = self._wet < 1 or self._track is not None  # the input is part of the output
        # The noisy signal below 8 kHz back at its own rate: what it lacks is the treble.
        self._up_noisy = StreamResampler(channels, SAMPLE_RATE, sample_rate) if wide and self._blend else None
        nothing = np.zeros((channels, 0), np.float32)
        self._input = self._noisy = self._low = self._enhanced = nothing  # waiting for their partners
        self._taken = 0

    @property
    def replaced(self) -> int:
        return self._core.replaced

    @property
    def causal(self) -> bool:
        return self._core.causal

    def ready(self, taken: Counts) -> Counts:
        """How many samples have come out when `taken` have gone in, in blocks of any size.

        Raises SemambaError with contrast stretching, whose level needs the whole signal.
        """
        if self._stretch is not None:
            raise SemambaError("contrast stretching cannot stream: it keeps the level of the whole signal")
        low = self._down.ready(taken)
        enhanced = self._core.ready(low)
        count = np.minimum(taken, self._up.ready(enhanced))
        if self._track is not None:
            count = np.minimum(count, self._curve.reach(self._track.ready(enhanced)))
        return count

    def delay(self, block: int = 1) -> int:
        """Most samples that are in and not yet out, ever, when they come in blocks of multiples of `block`."""
        # Hops and phases of filters meet again after this many samples at 16 kHz, so one such period says it all.
        period = math.lcm(self._core.hop, HOP, SAMPLE_RATE // math.gcd(SAMPLE_RATE, self._rate))
        # The second that is added covers the start.
        taken = block * np.arange(period * self._rate // SAMPLE_RATE + self._rate, dtype=np.int64)
        return int((taken - self.ready(taken)).max())

    def push(self, block: Samples) -> Samples:
        """(C, k) -> (C, m): what is finished, m may be 0."""
        finite = np.isfinite(block)
        if not finite.all():
            self.invalid += int(finite.size - np.count_nonzero(finite))
            block = np.where(finite, block, np.float32(0))
        self._taken += block.shape[1]
        if self._blend:
            self._input = np.concatenate([self._input, block], axis=1)
        low = self._down.push(block)
        self._model(low)
        return self._mix()

    def finish(self) -> Samples:
        """The rest. The engine is used up afterwards."""
        length = -(-self._taken * SAMPLE_RATE // self._rate)
        self._model(self._down.finish(length))
        self._after(self._core.finish())
        if self._stretch is not None:
            self._enhanced = _append(self._enhanced, self._up.push(self._stretch.finish()))
        self._enhanced = _append(self._enhanced, self._up.finish(self._taken))
        if self._up_noisy is not None:
            self._low = _append(self._low, self._up_noisy.finish(self._taken))
        if self._track is not None:
            self._curve.push(self._track.finish())
        return self._mix()

    def _model(self, low: Samples) -> None:
        """The noisy signal at 16 kHz goes into the model, and to where it will meet the result."""
        if self._up_noisy is not None:
            self._low = _append(self._low, self._up_noisy.push(low))
        if self._track is not None:
            self._noisy = _append(self._noisy, low)
        self._after(self._core.push(low))

    def _after(self, enhanced: Samples) -> None:
        """What the model gave at 16 kHz: measured, stretched, brought back to the rate of the signal."""
        if self._track is not None:
            count = enhanced.shape[1]
            self._curve.push(self._track.push(self._noisy[:, :count], enhanced))
            self._noisy = self._noisy[:, count:].copy()
        if self._stretch is not None:
            enhanced = self._stretch.push(enhanced)
        self._enhanced = _append(self._enhanced, self._up.push(enhanced))

    def _mix(self) -> Samples:
        """Combine as many samples as all partners have."""
        if not self._blend:
            done, self._enhanced = self._enhanced, self._enhanced[:, :0]
            return done
        count = min(self._enhanced.shape[1], self._input.shape[1])
        if self._up_noisy is not None:
            count = min(count, self._low.shape[1])
        if self._track is not None:
            count = min(count, self._curve.ready)
        wet, self._enhanced = _split(self._enhanced, count)
        dry, self._input = _split(self._input, count)
        low, self._low = _split(self._low, count if self._up_noisy is not None else 0)
        if self._track is not None:
            wet = wet + self._curve.take(count) * (dry - low)
        elif self._up_noisy is not None:
            dry = low
        return (np.float32(1 - self._wet) * dry + np.float32(self._wet) * wet).astype(np.float32, copy=False)


def _append(first: Samples, second: Samples) -> Samples:
    if not first.shape[1]:
        return second
    return np.concatenate([first, second], axis=1) if second.shape[1] else first


def _split(wave: Samples, count: int) -> tuple[Samples, Samples]:
    return wave[:, :count], wave[:, count:].copy()
