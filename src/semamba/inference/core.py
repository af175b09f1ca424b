"""Any PyTorch model as a stage with bounded memory (see `stages`), and the calls that a GPU replays.

Letters: C channels (run as a batch), n samples, T frames, F bins.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semamba.inference.engine import Core
from semamba.inference.graphs import Graphs
from semamba.inference.stages import CausalStage, ChunkStage, chunk_sizes
from semamba.spectrum import Spectrum

Samples = npt.NDArray[np.float32]


def make_core(model: Any, channels: int, chunk_seconds: float | None = None) -> Core:
    """The stage that suits the model: state carried over, or chunks of `chunk_seconds`."""
    stft = model.stft
    if model.causal and stft.framing == "causal":
        return CausalCore(model, channels)
    return ChunkCore(model, channels, *chunk_sizes(model.config.kind, chunk_seconds))


class Runner:
    """A model between waveforms on its device: what all cores of one model share, with the graphs of its calls.

    `stream` and `whole` also say, as a tensor (), whether all is finite, so that one look at the device is enough.
    """

    def __init__(self, model: Any) -> None:
        self._weak = ref(model)  # the registry below must not keep models alive
        self._place = _place(model)
        self.device = self._place[0]
        self._spectrum = Spectrum(model.stft).to(self.device)
        self._graphs = Graphs()

    @property
    def model(self) -> Any:
        return self._weak()

    @property
    def moved(self) -> bool:
        """Whether the weights have gone elsewhere since."""
        return _place(self.model) != self._place

    def run(self, function: Any, *arguments: Any) -> Any:
        return self._graphs(function, *arguments)

    def stream(
        self, wave: Tensor, before: Tensor | None, state: Any, after: Tensor | None
    ) -> tuple[Tensor, Tensor, Any, Tensor, Tensor]:
        """Whole hops (C, n) and three memories -> result (C, n), the memories, finite."""
        frames, before = self._spectrum.analyse_stream(wave, before)
        enhanced, state = self.model(frames, state)
        result, after = self._spectrum.synthesise_stream(enhanced, after)
        return result, before, state, after, result.isfinite().all() & after.isfinite().all()

    def whole(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(1, n) -> result (1, n), finite."""
        levelled = self.model.normalise == "rms"
        level = wave.double().square().mean().sqrt().float() if levelled else wave.new_ones(())
        level = torch.where(level > 0, level, torch.ones_like(level))  # an energy that underflows is no level
        enhanced, _ = self.model(self._spectrum.analyse(wave / level))
        result = self._spectrum.synthesise(enhanced, wave.shape[1]) * level
        return result, result.isfinite().all()


_RUNNERS: WeakKeyDictionary[Any, Runner] = WeakKeyDictionary()


def runner(model: Any) -> Runner:
    """The one Runner of a model, as long as its weights stay where they are."""
    found = _RUNNERS.get(model)
    if found is None or found.moved:
        found = _RUNNERS[model] = Runner(model)
    return found


def _place(model: Any) -> tuple[torch.device, torch.dtype, int]:
    first = next(iter(model.parameters()), torch.empty(0))
    return first.device, first.dtype, first.data_ptr()


class CausalCore(CausalStage):
    """A causal model; its memory is the tail of the analysis, the model's state, the tail of the synthesis."""

    def __init__(self, model: Any, channels: int) -> None:
        super().__init__(channels, model.stft.hop_length, model.stft.overlap)
        self._model, self._runner = model, runner(model)

    @torch.inference_mode()
    def _stream(self, block: Samples, memory: Any) -> tuple[Samples, Any, bool]:
        wave = torch.from_numpy(np.ascontiguousarray(block)).to(self._runner.device)
        result, *memory, finite = self._runner.run(self._runner.stream, wave, *(memory or (None, None, None)))
        return result.cpu().numpy(), memory, bool(finite)


class ChunkCore(ChunkStage):
    """A model that needs the future, on chunks of `size` samples."""

    def __init__(self, model: Any, channels: int, size: int, overlap: int) -> None:
        super().__init__(channels, size, overlap)
        self._model, self._runner = model, runner(model)

    @torch.inference_mode()
    def _whole(self, wave: Samples) -> tuple[Samples, bool]:
        result, finite = self._runner.run(
            self._runner.whole, torch.from_numpy(np.ascontiguousarray(wave)).to(self._runner.device)
        )
        return result.cpu().numpy().copy(), bool(finite)
