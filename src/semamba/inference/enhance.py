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
from semamba.inference.engine import Engine, Options

Wave = TypeVar("Wave", npt.NDArray[Any], Tensor)
Samples = npt.NDArray[np.float32]

_MAX_CHANNELS = 1024
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
        if isinstance(x, Tensor):
            given = x.detach().cpu()
            plain = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
            result = self._array(plain.numpy(), sample_rate, options)
            return torch.from_numpy(result).to(dtype=x.dtype, device=x.device)
        return self._array(np.asarray(x), sample_rate, options)

    def engine(self, channels: int, sample_rate: int, options: Options | None = None) -> Engine:
        """For signals that come in blocks: `push` and `finish`."""
        return Engine(self.model, channels, sample_rate, options or Options())

    def _array(self, x: npt.NDArray[Any], sample_rate: int, options: Options) -> npt.NDArray[Any]:
        if x.ndim not in (1, 2):
            raise SemambaError(f"expected an array of shape (n,) or (channels, n), got {x.shape}")
        if x.size == 0:
            return x.copy()
        flat = x.reshape(-1, x.shape[-1])
        if flat.shape[0] > _MAX_CHANNELS:
            raise SemambaError(f"expected (channels, n), got {x.shape}: {x.shape[0]} channels? transpose it")
        wave = _to_float(flat)
        engine = self.engine(flat.shape[0], _whole(sample_rate), options)
        step = max(1, int(_BLOCK_SECONDS * sample_rate))
        done = [engine.push(wave[:, start : start + step]) for start in range(0, wave.shape[1], step)]
        result = np.concatenate([*done, engine.finish()], axis=1)
        for line in complaints(engine):
            warnings.warn(line, stacklevel=3)
        return _from_float(result, x.dtype).reshape(x.shape)


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


def _to_float(wave: npt.NDArray[Any]) -> Samples:
    if np.issubdtype(wave.dtype, np.floating):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported as such
            return wave.astype(np.float32)
    if wave.dtype == np.uint8:
        return ((wave.astype(np.float32) - 128) / 128).astype(np.float32)
    if np.issubdtype(wave.dtype, np.signedinteger):
        return (wave / -float(np.iinfo(wave.dtype).min)).astype(np.float32)
    raise SemambaError(f"expected samples as floats or signed integers, got {wave.dtype}")


def _from_float(wave: Samples, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if np.issubdtype(dtype, np.floating):
        return wave.astype(dtype)
    if dtype == np.uint8:
        return np.clip(np.rint(wave * 128) + 128, 0, 255).astype(dtype)
    limits = np.iinfo(dtype)
    scaled = np.rint(wave.astype(np.float64) * -float(limits.min))
    return np.clip(scaled, limits.min, limits.max).astype(dtype)
