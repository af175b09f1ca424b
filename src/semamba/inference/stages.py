"""Models as stages with bounded memory at 16 kHz, whatever computes them: samples in, as many samples out, later.

Letters: C channels, n samples. Subclasses say what runs the model: `core` in PyTorch, `semamba.export.runtime` in ONNX.
No torch here.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import numpy.typing as npt

from semamba.inference.engine import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

# Seconds of one channel that a model that needs the future sees at once. The convolutions of the advanced codec hold
# hundreds of channels for every bin and frame; 10 s of them would not fit into the memory of a small machine.
_CHUNK_SECONDS = {"advanced": 3.0}
_DEFAULT_CHUNK_SECONDS = 10.0
_OVERLAP_SECONDS = 1.0
_CAUSAL_SECONDS = 4.0  # of all channels together in one call of a causal model


def chunk_sizes(kind: str, seconds: float | None = None) -> tuple[int, int]:
    """Samples of a chunk and of its overlap with the next, for a kind of model; `seconds` None: what suits it."""
    seconds = seconds or _CHUNK_SECONDS.get(kind, _DEFAULT_CHUNK_SECONDS)
    overlap = min(_OVERLAP_SECONDS, seconds / 4)
    return round(seconds * SAMPLE_RATE), round(overlap * SAMPLE_RATE)


class CausalStage(abc.ABC):
    """Whole hops go through analysis, model and synthesis; `_memory` is what they remember of the past."""

    causal = True

    def __init__(self, channels: int, hop: int, overlap: int) -> None:
        self.replaced = 0
        self.hop, self._overlap = hop, overlap
        self._step = max(1, int(_CAUSAL_SECONDS * SAMPLE_RATE / hop / max(1, channels))) * hop
        self._waiting = np.zeros((channels, 0), np.float32)
        self._taken = self._given = 0
        self._skip = overlap  # output that belongs to the silence before the start
        self._late = np.zeros((channels, overlap), np.float32)  # last input: it is as late as the output
        self._memory: Any = None

    @abc.abstractmethod
    def _stream(self, block: Samples, memory: Any) -> tuple[Samples, Any, bool]:
        """Whole hops (C, n) and the memory (None at the start) -> result (C, n), new memory, whether all is finite."""

    def ready(self, taken: Counts) -> Counts:
        return np.maximum(0, taken // self.hop * self.hop - self._overlap)

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
        silence = -waiting % self.hop + self._overlap  # pushes out what the overlaps still hold
        taken, missing = self._taken, self._taken - self._given
        rest = self.push(np.zeros((self._waiting.shape[0], silence), np.float32))
        self._taken = self._given = taken
        return rest[:, :missing]

    def _deliver(self, wave: Samples) -> Samples:
        kept = wave[:, self._skip :]
        self._skip -= min(self._skip, wave.shape[1])
        self._given += kept.shape[1]
        return kept

    def _run(self, block: Samples) -> Samples:
        result, self._memory, finite = self._stream(block, self._memory)
        if not finite:
            # A memory that holds a NaN keeps it for ever: keep this input as it is and start again.
            self.replaced += result.size
            result = np.concatenate([self._late, block], axis=1)[:, : block.shape[1]]
            self._memory = None
        short = block.shape[1] < self._overlap
        self._late = (np.concatenate([self._late, block], axis=1) if short else block)[:, -self._overlap :].copy()
        return result


class ChunkStage(abc.ABC):
    """Chunk k covers samples [k hop, k hop + size), hop = size - overlap; overlaps are cross-faded linearly.

    A signal that fits into one chunk is given to the model whole. The last chunk reaches back to be as long as they.
    """

    causal = False

    def __init__(self, channels: int, size: int, overlap: int) -> None:
        self.replaced = 0
        self._size, self._overlap, self.hop = size, overlap, size - overlap
        self._fade = ((np.arange(overlap) + 0.5) / max(1, overlap)).astype(np.float32)
        self._buffer = np.zeros((channels, 0), np.float32)
        self._start = 0  # where the next chunk starts in the buffer; what lies before is context for the last chunk
        self._tail: Samples | None = None  # end of the previous chunk, to be faded out

    @abc.abstractmethod
    def _whole(self, wave: Samples) -> tuple[Samples, bool]:
        """(1, n) -> result (1, n), which the stage may write into, and whether all of it is finite."""

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

    def _enhance(self, chunk: Samples) -> Samples:
        if not chunk.any():
            return np.zeros_like(chunk)
        result, finite = self._whole(chunk)
        if not finite:
            self.replaced += result.size
            return chunk.copy()
        return result
