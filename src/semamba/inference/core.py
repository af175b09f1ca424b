"""Any model as a bounded-memory stage at 16 kHz: samples in, as many samples out, later.

Letters: C channels (run as a batch), n samples, T frames, F bins. Causal models carry their state from block to block;
the others see overlapping chunks whose borders are cross-faded.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semamba.inference.engine import SAMPLE_RATE, Core
from semamba.inference.graphs import Graphs
from semamba.spectrum import Spectrum

Samples = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

# Seconds of one channel that a model that needs the future sees at once. The convolutions of the advanced codec hold
# hundreds of channels for every bin and frame; 10 s of them would not fit into the memory of a small machine.
CHUNK_SECONDS = {"advanced": 3.0}
DEFAULT_CHUNK_SECONDS = 10.0
OVERLAP_SECONDS = 1.0
_CAUSAL_SECONDS = 4.0  # of all channels together in one call of a causal model


def make_core(model: Any, channels: int, chunk_seconds: float | None = None) -> Core:
    """The stage that suits the model: state carried over, or chunks of `chunk_seconds`."""
    stft = model.stft
    if model.causal and stft.framing == "causal":
        return CausalCore(model, channels)
    seconds = chunk_seconds or CHUNK_SECONDS.get(model.config.kind, DEFAULT_CHUNK_SECONDS)
    overlap = min(OVERLAP_SECONDS, seconds / 4)
    return ChunkCore(model, channels, round(seconds * SAMPLE_RATE), round(overlap * SAMPLE_RATE))


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
        if self.device.type == "cpu":  # no graphs there, and a hop is too short to look for them
            return function(*arguments)
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


class CausalCore:
    """Whole hops go through analysis, model and synthesis; three states remember the past."""

    causal = True

    def __init__(self, model: Any, channels: int) -> None:
        self.replaced = 0
        self._model, self._runner = model, runner(model)
        self.hop = model.stft.hop_length
        hops = int(_CAUSAL_SECONDS * SAMPLE_RATE / self.hop / max(1, channels))
        self._step = max(1, hops) * self.hop
        self._waiting = np.zeros((channels, 0), np.float32)
        self._taken = self._given = 0
        self._skip = model.stft.overlap  # output that belongs to the silence before the start
        self._late = np.zeros((channels, model.stft.overlap), np.float32)  # last input: it is as late as the output
        self._restart()

    def ready(self, taken: Counts) -> Counts:
        return np.maximum(0, taken // self.hop * self.hop - self._model.stft.overlap)

    def push(self, block: Samples) -> Samples:
        self._taken += block.shape[1]
        waiting = np.concatenate([self._waiting, block], axis=1) if self._waiting.shape[1] else block
        whole = waiting.shape[1] // self.hop * self.hop
        self._waiting = waiting[:, whole:].copy()
        pieces = [self._run(waiting[:, i : min(i + self._step, whole)]) for i in range(0, whole, self._step)]
        if len(pieces) == 1:
            return self._deliver(pieces[0])
        return self._deliver(np.concatenate(pieces, axis=1) if pieces else waiting[:, :0])

    def finish(self) -> Samples:
        waiting = self._waiting.shape[1]
        silence = -waiting % self.hop + self._model.stft.overlap  # pushes out what the overlaps still hold
        taken, missing = self._taken, self._taken - self._given
        rest = self.push(np.zeros((self._waiting.shape[0], silence), np.float32))
        self._taken = self._given = taken
        return rest[:, :missing]

    def _deliver(self, wave: Samples) -> Samples:
        kept = wave[:, self._skip :]
        self._skip -= min(self._skip, wave.shape[1])
        self._given += kept.shape[1]
        return kept

    def _restart(self) -> None:
        self._before: Tensor | None = None  # tail of the analysis
        self._after: Tensor | None = None  # tail of the synthesis
        self._state: Any = None

    @torch.inference_mode()
    def _run(self, block: Samples) -> Samples:
        wave = torch.from_numpy(np.ascontiguousarray(block)).to(self._runner.device)
        memory = self._before, self._state, self._after
        output, self._before, self._state, self._after, finite = self._runner.run(self._runner.stream, wave, *memory)
        result: Samples = output.cpu().numpy()
        if not finite:
            # A state that holds a NaN keeps it for ever: keep this input as it is and start again.
            self.replaced += result.size
            result = np.concatenate([self._late, block], axis=1)[:, : block.shape[1]]
            self._restart()
        overlap = self._late.shape[1]
        short = block.shape[1] < overlap
        self._late = (np.concatenate([self._late, block], axis=1) if short else block)[:, -overlap:].copy()
        return result


class ChunkCore:
    """Chunk k covers samples [k hop, k hop + size), hop = size - overlap; overlaps are cross-faded linearly.

    A signal that fits into one chunk is given to the model whole. The last chunk reaches back to be as long as they.
    """

    causal = False

    def __init__(self, model: Any, channels: int, size: int, overlap: int) -> None:
        self.replaced = 0
        self._model, self._runner = model, runner(model)
        self._size, self._overlap, self.hop = size, overlap, size - overlap
        self._fade = ((np.arange(overlap) + 0.5) / max(1, overlap)).astype(np.float32)
        self._buffer = np.zeros((channels, 0), np.float32)
        self._start = 0  # where the next chunk starts in the buffer; what lies before is context for the last chunk
        self._tail: Samples | None = None  # end of the previous chunk, to be faded out

    def ready(self, taken: Counts) -> Counts:
        return np.maximum(0, -(-(taken - self._size) // self.hop) * self.hop)

    def push(self, block: Samples) -> Samples:
        self._buffer = np.concatenate([self._buffer, block], axis=1)
        done = [self._buffer[:, :0]]
        while self._buffer.shape[1] - self._start > self._size:
            chunk = self._join(self._run(self._buffer[:, self._start : self._start + self._size]))
            done.append(chunk[:, : self.hop])
            self._tail = chunk[:, self.hop :].copy()
            self._buffer = self._buffer[:, self._start :].copy()
            self._start = self.hop
        return np.concatenate(done, axis=1)

    def finish(self) -> Samples:
        total = self._buffer.shape[1]
        if total == self._start:
            return self._buffer[:, :0]
        first = max(0, total - self._size)
        chunk = self._run(self._buffer[:, first:])[:, self._start - first :]
        chunk = self._join(chunk)
        self._buffer, self._start, self._tail = self._buffer[:, :0], 0, None
        return chunk

    def _join(self, chunk: Samples) -> Samples:
        if self._tail is not None:
            chunk[:, : self._overlap] = self._tail * (1 - self._fade) + chunk[:, : self._overlap] * self._fade
        return chunk

    def _run(self, chunk: Samples) -> Samples:
        """One channel after the other: the memory of a chunk does not depend on how many there are."""
        return np.concatenate([self._enhance(chunk[c : c + 1]) for c in range(chunk.shape[0])])

    @torch.inference_mode()
    def _enhance(self, chunk: Samples) -> Samples:
        if not chunk.any():
            return np.zeros_like(chunk)
        wave = torch.from_numpy(np.ascontiguousarray(chunk)).to(self._runner.device)
        result, finite = self._runner.run(self._runner.whole, wave)
        if not finite:
            self.replaced += result.numel()
            result = wave
        return result.cpu().numpy().copy()
