"""Samples as people have them (NumPy or torch, any dtype, one channel or several) and as the engine wants them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from semamba.errors import SemambaError

Samples = npt.NDArray[np.float32]

MAX_CHANNELS = 1024


def unpack(x: Any) -> tuple[Samples, Callable[[Samples], Any]]:
    """(n,) or (channels, n) -> float32 (channels, n) with full scale 1, and what turns such a result into x's kind.

    Raises SemambaError for other shapes and for samples that are no numbers.
    """
    torch = sys.modules.get("torch")  # who has a tensor has loaded it
    if torch is not None and isinstance(x, torch.Tensor):
        given = x.detach().cpu()
        plain = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
        wave, pack = unpack(plain.numpy())
        return wave, lambda result: torch.from_numpy(pack(result)).to(dtype=x.dtype, device=x.device)
    array = np.asarray(x)
    if array.ndim not in (1, 2):
        raise SemambaError(f"expected an array of shape (n,) or (channels, n), got {array.shape}")
    if array.ndim == 2 and array.shape[0] > MAX_CHANNELS:
        raise SemambaError(f"expected (channels, n), got {array.shape}: {array.shape[0]} channels? transpose it")
    wave = to_float(array[None] if array.ndim == 1 else array)
    if array.ndim == 1:
        return wave, lambda result: from_float(result, array.dtype)[0]
    return wave, lambda result: from_float(result, array.dtype)


def to_float(wave: npt.NDArray[Any]) -> Samples:
    """Floats as they are, integers with the full scale of their type as 1; a copy."""
    if np.issubdtype(wave.dtype, np.floating):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported as such
            return wave.astype(np.float32)
    if wave.dtype == np.uint8:
        return ((wave.astype(np.float32) - 128) / 128).astype(np.float32)
    if np.issubdtype(wave.dtype, np.signedinteger):
        return (wave / -float(np.iinfo(wave.dtype).min)).astype(np.float32)
    raise SemambaError(f"expected samples as floats or signed integers, got {wave.dtype}")


def from_float(wave: Samples, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The inverse; integers are rounded and clip."""
    dtype = np.dtype(dtype)
    if np.issubdtype(dtype, np.floating):
        return wave.astype(dtype)
    if dtype == np.uint8:
        return np.clip(np.rint(wave * 128) + 128, 0, 255).astype(dtype)
    limits = np.iinfo(dtype)
    scaled = np.rint(wave.astype(np.float64) * -float(limits.min))
    return np.clip(scaled, limits.min, limits.max).astype(dtype)
