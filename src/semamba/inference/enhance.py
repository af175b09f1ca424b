"""`Enhancer`: a model with a waveform on both sides, for arrays and tensors of any rate, type and channels."""

from __future__ import annotations

import functools
import warnings
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semamba import checkpoint
from semamba.errors import SemambaError
from semamba.inference.arrays import unpack
from semamba.inference.core import make_core
from semamba.inference.engine import Engine, Options

Wave = TypeVar("Wave", npt.NDArray[Any], Tensor)
Samples = npt.NDArray[np.float32]

_BLOCK_SECONDS = 4


class Enhancer:
    """Called like a function: `enhancer(x, sample_rate=48000)`; keeps nothing between calls, threads may share it."""

    def __init__(self, model: nn.Module, device: str | torch.device | None = None, name: str = "") -> None:
        """`device` None takes the GPU when there is one. Raises SemambaError when the device is not there."""
        self.device = choose_device(device)
        self.model: Any = model.to(self.device).eval()
        self.name = name

    def __call__(
        self,
        x: Wave,
        sample_rate: int = 16_000,
        *,
        pcs: bool = False,
        attenuation_limit: float | None = None,
        mix: float = 1.0,
        bandwidth: str = "full",
    ) -> Wave:
        """Enhance (n,) or (channels, n); returns the same kind, shape and dtype.

        Floats have full scale 1, integers that of their type. `attenuation_limit` in dB bounds how far noise falls,
        `mix` blends the input back in, `pcs` adds contrast stretching, `bandwidth="model"` drops what is above 8 kHz.
        Raises SemambaError for shapes and options that make no sense.
        """
        options = Options(pcs, attenuation_limit, mix, bandwidth)  # type: ignore[arg-type]
        rate = _whole(sample_rate)
        flat, pack = unpack(x)
        if not flat.size:
            return pack(flat)
        engine = self.engine(flat.shape[0], rate, options)
        step = _BLOCK_SECONDS * rate
        done: list[Samples] = [engine.push(flat[:, start : start + step]) for start in range(0, flat.shape[1], step)]
        result = np.concatenate([*done, engine.finish()], axis=1)
        for line in complaints(engine):
            warnings.warn(line, stacklevel=2)
        return pack(result)

    def engine(self, channels: int, sample_rate: int, options: Options | None = None) -> Engine:
        """For signals that come in blocks: `push` and `finish`."""
        options = options or Options()
        return Engine(make_core(self.model, channels, options.chunk_seconds), channels, sample_rate, options)


def load(name: str | None = None, device: str | None = None) -> Enhancer:
    """The enhancer of a shipped model (None: the default), or of a folder with weights.

    Raises SemambaError naming the models that exist.
    """
    name = str(name) if name is not None else checkpoint.DEFAULT_MODEL
    chosen = choose_device(device)
    return Enhancer(checkpoint.load(name, device="cpu"), chosen, name)


def enhance(x: Wave, sample_rate: int = 16_000, *, model: str | None = None, **options: Any) -> Wave:
    """`load(model)(x, sample_rate, **options)`; the model stays in memory for the next call."""
    return _loaded(model)(x, sample_rate, **options)


@functools.lru_cache(maxsize=2)
def _loaded(model: str | None) -> Enhancer:
    return load(model)


def choose_device(device: str | torch.device | None) -> torch.device:
    """None takes CUDA when it is there, else the CPU. Raises SemambaError for a device that is not."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SemambaError(f"device '{device}' cannot be used here ({reason}); use cpu") from None
    return chosen


def complaints(engine: Engine) -> list[str]:
    """One line for each thing that was odd in the samples."""
    lines = []
    if engine.invalid:
        lines.append(f"{engine.invalid} samples were NaN or infinite and were taken as silence")
    if engine.replaced:
        lines.append(f"the model gave no finite result for {engine.replaced} samples at 16 kHz; kept the input there")
    return lines


def _whole(sample_rate: float) -> int:
    if not sample_rate > 0 or sample_rate != int(sample_rate):
        raise SemambaError(f"the sample rate must be a whole number of Hz above 0, got {sample_rate}")
    return int(sample_rate)
