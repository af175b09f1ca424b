"""`Streamer`: sound in blocks of any size, with a delay that is stated.

Letters: C channels, k samples of a block at the rate of the stream.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semamba.errors import SemambaError
from semamba.inference.arrays import MAX_CHANNELS, unpack
from semamba.inference.engine import Engine, Options

Samples = npt.NDArray[np.float32]


class Streamer:
    """`feed(block)` any number of times, then `flush()`; one stream for one thread.

    Exact mode returns what is finished, be it nothing: all blocks together are what `Enhancer` makes of the whole
    signal. Fixed mode is for live use: each `feed` returns as many samples as it was given, `latency_samples` late,
    silence first.
    """

    def __init__(
        self,
        model: Any = None,
        sample_rate: int = 16_000,
        channels: int = 1,
        mode: Literal["exact", "fixed"] = "exact",
        *,
        attenuation_limit: float | None = None,
        mix: float = 1.0,
        bandwidth: Literal["full", "model"] | None = None,
        block: int = 1,
        device: str = "cpu",
    ) -> None:
        """`model`: a name, a folder with weights, a causal model, an `Enhancer`, or None for the default.

        `sample_rate` in Hz; `attenuation_limit` in dB and `mix` as of `Enhancer`. `bandwidth="model"` drops what lies
        above 8 kHz, which takes 28 ms less at higher rates: the default of fixed mode; "full" is that of exact mode.
        When every block has a multiple of `block` samples, saying so may shorten the latency.
        Raises SemambaError for a model that needs the future, and for values out of range.
        """
        if mode not in ("exact", "fixed"):
            raise SemambaError(f"mode must be 'exact' or 'fixed', got '{mode}'")
        if not 1 <= channels <= MAX_CHANNELS:
            raise SemambaError(f"channels must lie between 1 and {MAX_CHANNELS}, got {channels}")
        if block < 1:
            raise SemambaError(f"block must be 1 or more samples, got {block}")
        self.sample_rate, self.channels, self.mode, self.block = sample_rate, channels, mode, block
        self.options = Options(
            attenuation_limit=attenuation_limit,
            mix=mix,
            bandwidth=bandwidth or ("full" if mode == "exact" else "model"),
        )
        self._enhancer = _open(model, device)
        engine = self._enhancer.engine(channels, sample_rate, self.options)
        if not engine.causal:
            raise SemambaError(_needs_the_future(model))
        self._latency = engine.delay(block)
        self._late = self._latency if mode == "fixed" else 0
        self.reset()

    @property
    def latency_samples(self) -> int:
        """Samples at the stream's rate: in fixed mode, how much later each one comes out.

        In exact mode, how many are in and not yet out, at most.
        """
        return self._latency

    @property
    def latency_seconds(self) -> float:
        return self._latency / self.sample_rate

    @property
    def invalid(self) -> int:
        """Input samples of this stream that were NaN or infinite, and were taken as silence."""
        return self._engine.invalid

    @property
    def replaced(self) -> int:
        """Samples at 16 kHz for which the model gave no finite number, so that the input was kept."""
        return self._engine.replaced

    def feed(self, block: Any) -> Any:
        """(k,) or (channels, k), NumPy or torch, floats with full scale 1 or integers -> the same kind, (m,) or (C, m).

        m is k in fixed mode, anything from 0 in exact mode. Raises SemambaError for another number of channels.
        """
        wave, self._pack = unpack(block)
        if wave.shape[0] != self.channels:
            raise SemambaError(f"expected blocks of {self.channels} channels, got {wave.shape[0]}: shape {block.shape}")
        if wave.shape[1] % self.block:
            raise SemambaError(f"expected blocks of multiples of {self.block} samples, got {wave.shape[1]}")
        done = self._engine.push(wave)
        return self._pack(done if self.mode == "exact" else self._delayed(done, wave.shape[1]))

    def flush(self) -> Any:
        """The rest, of the kind of the last block; after it the next `feed` starts a new stream.

        In fixed mode these are the last `latency_samples`.
        """
        done = self._engine.finish()
        result = done if self.mode == "exact" else self._delayed(done, self._late)
        pack = self._pack
        self.reset()
        return pack(result)

    def reset(self) -> None:
        """Forget everything: the next block starts a new stream."""
        self._engine: Engine = self._enhancer.engine(self.channels, self.sample_rate, self.options)
        self._waiting = np.zeros((self.channels, self._late), np.float32)
        self._pack = _plain

    def _delayed(self, done: Samples, count: int) -> Samples:
        waiting = np.concatenate([self._waiting, done], axis=1)
        self._waiting = waiting[:, count:].copy()
        return waiting[:, :count]


def _plain(result: Samples) -> Samples:
    return result


def _open(model: Any, device: str) -> Any:
    """Something with `engine(channels, sample_rate, options)`, as `Enhancer` has it."""
    if hasattr(model, "engine"):
        return model
    from semamba.inference.enhance import Enhancer, load

    if model is None or not callable(model):
        return load(model, device)
    return Enhancer(model, device)


def _needs_the_future(model: Any) -> str:
    from semamba import checkpoint

    name = getattr(model, "name", model if isinstance(model, str) else "")
    causal = ", ".join(name for name in checkpoint.shipped() if "causal" in name)
    return f"model '{name}' needs the future and cannot stream; causal models are {causal}"
