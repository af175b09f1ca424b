"""`Enhancer`: a model with a waveform on both sides, for arrays and tensors of any rate, type and channels."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semamba import checkpoint
from semamba.errors import SemambaError
from semamba.inference.base import BaseEnhancer, Wave
from semamba.inference.core import make_core
from semamba.inference.engine import Engine, Options


class Enhancer(BaseEnhancer):
    """A PyTorch model, called like a function (see `BaseEnhancer`)."""

    def __init__(self, model: nn.Module, device: str | torch.device | None = None, name: str = "") -> None:
        """`device` None takes the GPU when there is one. Raises SemambaError when the device is not there."""
        self.device = choose_device(device)
        self.model: Any = model.to(self.device).eval()
        self.name = name

    def engine(self, channels: int, sample_rate: int, options: Options | None = None) -> Engine:
        options = options or Options()
        return Engine(make_core(self.model, channels, options.chunk_seconds), channels, sample_rate, options)


def load(name: str | Path | None = None, device: str | None = None) -> Enhancer:
    """The enhancer of a shipped model (None: the default), or of a folder with weights.

    Raises SemambaError naming the models that exist.
    """
    name = name if name is not None else checkpoint.DEFAULT_MODEL
    chosen = choose_device(device)
    return Enhancer(checkpoint.load(name, device="cpu"), chosen, str(name))


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
