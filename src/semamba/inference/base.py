"""What every enhancer does with an array, whatever runs its model. No torch here: the ONNX runtime shares it."""

from __future__ import annotations

import abc
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from semamba.errors import SemambaError
from semamba.inference.arrays import unpack
from semamba.inference.engine import Engine, Options

if TYPE_CHECKING:
    from torch import Tensor

Wave = TypeVar("Wave", npt.NDArray[Any], "Tensor")
Samples = npt.NDArray[np.float32]

_BLOCK_SECONDS = 4


class BaseEnhancer(abc.ABC):
    """Called like a function: `enhancer(x, sample_rate=48000)`; keeps nothing between calls, threads may share it."""

    name = ""

    @abc.abstractmethod
    def engine(self, channels: int, sample_rate: int, options: Options | None = None) -> Engine:
        """For signals that come in blocks: `push` and `finish`."""

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
