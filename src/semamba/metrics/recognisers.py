"""Speech recognisers behind one small protocol; the only file that imports them (extra `asr`).

A recogniser is named `KIND` or `KIND:SIZE`: `faster-whisper:base`, `faster-whisper:/models/large-v3`, `pocketsphinx`.
Nothing is downloaded: weights are a folder on this machine.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semamba.errors import SemambaError
from semamba.metrics.pool import available_cpus

SAMPLE_RATE = 16000  # Hz
KINDS = ("faster-whisper", "pocketsphinx")
WHISPER_FILES = ("model.bin", "config.json")
FOLDER_VARIABLE = "SEMAMBA_WHISPER"  # folder that holds one folder of weights for each size

Wave = NDArray[np.float32]


class Recogniser(Protocol):
    """`transcribe(wave)`: the words of a signal (n,) at 16 kHz in ±1, as the recogniser writes them; "" for none."""

    def transcribe(self, wave: Wave) -> str: ...


@cache  # of each process: weights are read once
def open_recogniser(name: str) -> Recogniser:
    """The recogniser `KIND[:SIZE]`. Raises SemambaError that says what is missing, and where to put it."""
    kind, _, size = name.partition(":")
    if kind == "faster-whisper":
        return FasterWhisper(size or "base")
    if kind == "pocketsphinx" and not size:
        return PocketSphinx()
    raise SemambaError(f"recogniser '{name}' is unknown; there are faster-whisper[:SIZE or FOLDER] and pocketsphinx")


def many_at_once(name: str) -> bool:
    """Whether every process may have one of its own: small, and of one thread."""
    return name.partition(":")[0] != "faster-whisper"


def whisper_folder(size: str) -> Path:
    """Where the weights of a size, or of a folder given in its place, lie. Raises SemambaError when they do not."""
    given = Path(size)
    home = Path(os.environ.get(FOLDER_VARIABLE, "~/.cache/semamba/whisper")).expanduser()
    folder = given if given.is_dir() else home / size
    missing = [name for name in WHISPER_FILES if not (folder / name).is_file()]
    if missing:
        raise SemambaError(
            f"faster-whisper: no weights '{size}' here: put {missing[0]} with its companions (CTranslate2 format) into "
            f"{folder}, or name their folder with faster-whisper:FOLDER, or set {FOLDER_VARIABLE}"
        )
    return folder


class FasterWhisper:
    """Whisper through CTranslate2: English, beam 5, no text of one file carried to the next."""

    def __init__(self, size: str) -> None:
        folder = whisper_folder(size)
        try:
            import faster_whisper
        except ImportError:
            raise _missing("faster-whisper") from None
        try:
            self._model: Any = faster_whisper.WhisperModel(
                str(folder), device="auto", cpu_threads=available_cpus(), local_files_only=True
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise SemambaError(f"{folder}: faster-whisper cannot read these weights ({error})") from None

    def transcribe(self, wave: Wave) -> str:
        segments, _ = self._model.transcribe(wave, language="en", beam_size=5, condition_on_previous_text=False)
        return " ".join(segment.text.strip() for segment in segments)


class PocketSphinx:
    """A small hidden Markov model that comes with its package: weak, but offline; good for testing the plumbing."""

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError:
            raise _missing("pocketsphinx") from None
        self._decoder: Any = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def transcribe(self, wave: Wave) -> str:
        samples = np.clip(np.round(wave * 32767), -32768, 32767).astype("<i2").tobytes()
        # Its running mean of the cepstra would let a file depend on those before it.
        self._decoder.reinit()
        self._decoder.start_utt()
        self._decoder.process_raw(samples, no_search=False, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found is not None else ""


def _missing(package: str) -> SemambaError:
    return SemambaError(f"{package} is not installed: pip install 'semamba[asr]'")
