"""Both sides of live sound in two files of equal length, sample by sample of the same time."""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from semamba import audio
from semamba.errors import SemambaError

Samples = npt.NDArray[np.float32]


class Recording:
    """Context manager; `put` hands both sides to a thread that writes `PREFIX.noisy.wav` and `PREFIX.enhanced.wav`.

    The files appear complete at the end, also when it ends by Ctrl-C; not when writing fails.
    """

    def __init__(self, prefix: str, sample_rate: int, channels: int, skip: int = 0, overwrite: bool = False) -> None:
        """`skip` samples at the start are left out: the silence of the latency.

        Raises SemambaError when a file is there already and may not be replaced.
        """
        self.paths = tuple(Path(f"{prefix}.{side}.wav") for side in ("noisy", "enhanced"))
        for path in self.paths:
            if path.exists() and not overwrite:
                raise SemambaError(f"{path}: exists already; allow its replacement by --overwrite")
        self.error: BaseException | None = None  # what ended the writing
        self._info = audio.AudioInfo(sample_rate, channels, None, "WAV", "PCM_16")
        self._skip = skip
        self._queue: queue.SimpleQueue[tuple[Samples, Samples] | None] = queue.SimpleQueue()
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._work, name="semamba-record", daemon=True)

    def put(self, noisy: Samples, enhanced: Samples) -> None:
        """Two (C, k), k as it comes; returns at once."""
        if self.error is None:
            self._queue.put((noisy, enhanced))

    def __enter__(self) -> Self:
        self._thread.start()
        self._open.wait()
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                writers = [stack.enter_context(audio.open_writer(path, self._info)) for path in self.paths]
                self._open.set()
                while (pair := self._queue.get()) is not None:
                    skip = min(self._skip, pair[0].shape[1])
                    self._skip -= skip
                    for writer, side in zip(writers, pair, strict=True):
                        writer.write(side[:, skip:])
        except BaseException as error:
            self.error = error
        finally:
            self._open.set()
