"""Live sound between an audio callback, which may never wait, and a Streamer in a thread of its own.

Letters: C channels, k = `block` samples. What comes out of the callback is `latency_samples` behind what went in.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from semamba.inference.stream import Streamer

Samples = npt.NDArray[np.float32]
Sink = Callable[[Samples, Samples], None]  # takes noisy and enhanced sound of the same time, (C, k) each

_BACKLOG_SECONDS = 0.5  # input older than this is given up: it would only be enhanced for nobody
_METER_SECONDS, _GAIN_SECONDS = 0.1, 1.0  # how slowly levels and the attenuation move
_QUIET = 1e-12  # energy of a sample that counts as none, -120 dB


@dataclass(frozen=True)
class Status:
    """What there is to see of live sound. Levels in dB of full scale, -120 at least; counts of blocks."""

    input_level: float
    output_level: float
    attenuation: float  # dB that the enhanced sound lies below the noisy one of the same time
    load: float  # share of the time that one processor works
    late: int  # blocks that were not ready in time, for which there was silence
    dropped: int  # blocks never enhanced, since too many were waiting
    seconds: float  # of sound so far
    bypass: bool


class Duplex:
    """Context manager; `exchange` goes into the callback. A block has `slack` block lengths of time to be enhanced.

    A block that comes too late is thrown away, as silence took its place: the latency never grows.
    """

    def __init__(self, streamer: Streamer, slack: int = 1, sink: Sink | None = None) -> None:
        """`streamer` is one of fixed mode, made for blocks of `streamer.block`; `sink` is called in the thread."""
        self.block, self.bypass = streamer.block, False
        self.error: BaseException | None = None  # what ended the thread
        self.latency_samples = streamer.latency_samples + slack * self.block
        self._streamer, self._slack, self._sink = streamer, slack, sink
        self._most = max(slack + 1, int(_BACKLOG_SECONDS * streamer.sample_rate / self.block))
        self._dry = np.zeros((streamer.channels, streamer.latency_samples), np.float32)  # input, as late as the output
        self._share = 1.0  # of the enhanced sound at the end of the last block
        self._noisy_energy = self._enhanced_energy = self._input_energy = self._output_energy = 0.0
        self._load, self._blocks, self._late, self._dropped = 0.0, 0, 0, 0
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._stopping = False
        self._busy = False
        self._turn = 0  # counts restarts: a block of an earlier turn has no place in this one
        self.restart()
        self._thread = threading.Thread(target=self._work, name="semamba-live", daemon=True)

    def __enter__(self) -> Self:
        self._streamer.feed(self._silence())  # the first call of a model takes longer
        self._streamer.reset()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join()
        if self._sink is not None and self.error is None:
            self._sink(self._dry, self._streamer.flush())

    def restart(self) -> None:
        """For a device that starts anew: forget what waits."""
        with self._lock:
            self._turn += 1
            self._waiting: deque[Samples] = deque()
            self._ready: deque[Samples] = deque([self._silence()] * self._slack)
            self._owed = 0  # blocks of silence given out in place of ones that are still to come

    def exchange(self, block: Samples) -> Samples:
        """Called by the audio system with each (C, k); returns at once with (C, k) that is ready, else silence."""
        block = block.copy()  # the memory is the audio system's
        with self._lock:
            self._waiting.append(block)
            if len(self._waiting) > self._most:
                self._waiting.popleft()
                self._dropped += 1
                self._owed -= 1
            if self._ready:
                result = self._ready.popleft()
            else:
                result = self._silence()
                self._late += 1
                self._owed += 1
        self._wake.set()
        return result

    @property
    def idle(self) -> bool:
        """Whether all blocks so far are done."""
        with self._lock:
            return not self._waiting and not self._busy

    @property
    def status(self) -> Status:
        return Status(
            input_level=_decibels(self._input_energy),
            output_level=_decibels(self._output_energy),
            attenuation=max(0.0, _decibels(self._noisy_energy) - _decibels(self._enhanced_energy)),
            load=self._load,
            late=self._late,
            dropped=self._dropped,
            seconds=self._blocks * self.block / self._streamer.sample_rate,
            bypass=self.bypass,
        )

    def _work(self) -> None:
        try:
            while not self._stopping:
                if not self._step():
                    self._wake.wait()
                    self._wake.clear()
        except BaseException as error:
            self.error = error

    def _step(self) -> bool:
        """Enhance one block, if one waits."""
        with self._lock:
            if not self._waiting:
                return False
            block, turn, self._busy = self._waiting.popleft(), self._turn, True
        began = time.perf_counter()
        result = self._enhance(block)
        share = (time.perf_counter() - began) * self._streamer.sample_rate / self.block
        self._load += (share - self._load) * self._pace(_GAIN_SECONDS)
        self._blocks += 1
        with self._lock:
            self._busy = False
            if turn != self._turn:
                return True
            if self._owed > 0:
                self._owed -= 1
            else:
                self._ready.append(result)
        return True

    def _enhance(self, block: Samples) -> Samples:
        enhanced: Samples = self._streamer.feed(block)
        dry = np.concatenate([self._dry, block], axis=1)
        dry, self._dry = dry[:, : self.block], dry[:, self.block :].copy()
        target = 0.0 if self.bypass else 1.0
        result = enhanced if target else dry
        if self._share != target:  # a block long, so that switching does not click
            share = np.linspace(self._share, target, self.block, dtype=np.float32)
            result = share * enhanced + (1 - share) * dry
            self._share = target
        slow, fast = self._pace(_GAIN_SECONDS), self._pace(_METER_SECONDS)
        self._noisy_energy += (_energy(dry) - self._noisy_energy) * slow
        self._enhanced_energy += (_energy(enhanced) - self._enhanced_energy) * slow
        self._input_energy += (_energy(block) - self._input_energy) * fast
        self._output_energy += (_energy(result) - self._output_energy) * fast
        if self._sink is not None:
            self._sink(dry, enhanced)
        return result

    def _pace(self, seconds: float) -> float:
        """Weight of one block in a mean over about so many seconds."""
        return min(1.0, self.block / (seconds * self._streamer.sample_rate))

    def _silence(self) -> Samples:
        return np.zeros((self._streamer.channels, self.block), np.float32)


def _energy(block: Samples) -> float:
    return float(np.vdot(block, block)) / block.size


def _decibels(energy: float) -> float:
    return 10 * float(np.log10(max(energy, _QUIET)))
