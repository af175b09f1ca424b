"""Reading files in blocks through libsndfile, and through PyAV for what libsndfile does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from semamba.audio.formats import MEDIA_SUFFIXES, TAGS, AudioInfo, file_error, native
from semamba.audio.resample import resample
from semamba.errors import SemambaError

Samples = npt.NDArray[np.float32]

BLOCK = 65536  # frames
_ESTIMATED = {"MP3", "OGG"}  # containers whose length in the header is a guess when the end of the file is missing


class Reader(Protocol):
    """An open file. `warnings` fills with lines about what was odd but did not stop the reading."""

    path: Path
    info: AudioInfo
    warnings: list[str]

    def blocks(self, frames: int = BLOCK) -> Iterator[Samples]:
        """Blocks (channels, k), k <= frames, from the start to the end. Raises SemambaError on damaged data."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_reader(path: str | Path) -> Reader:
    """Open any audio file, or the first audio track of a video. Raises SemambaError with one clear line."""
    path = Path(path)
    if path.suffix.lower() in MEDIA_SUFFIXES:
        _refuse_hopeless(path)
        from semamba.audio.media import MediaReader

        return MediaReader(path)
    return SoundReader(path)


def probe(path: str | Path) -> AudioInfo:
    """What the header says."""
    with open_reader(path) as reader:
        return reader.info


def read(path: str | Path, sample_rate: int | None = None) -> tuple[Samples, int]:
    """The whole file as (channels, n) and its rate, converted to `sample_rate` when given."""
    with open_reader(path) as reader:
        info = reader.info
        blocks = list(reader.blocks())
    wave = np.concatenate(blocks, axis=1) if blocks else np.zeros((info.channels, 0), np.float32)
    if sample_rate is not None and sample_rate != info.sample_rate:
        return resample(wave, info.sample_rate, sample_rate), sample_rate
    return wave, info.sample_rate


class SoundReader:
    """A file that libsndfile reads."""

    def __init__(self, path: Path) -> None:
        import soundfile

        self.path = path
        self.warnings: list[str] = []
        _refuse_hopeless(path)
        try:
            self._file = soundfile.SoundFile(native(path))
        except (soundfile.LibsndfileError, TypeError) as error:
            reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
            raise SemambaError(
                f"{path}: not a readable audio file ({reason}); is it damaged, or another kind of file?"
            ) from None
        file = self._file
        # Otherwise soundfile seeks after every block: slow, inexact in lossy files, an error where no length is stated.
        file.seekable = lambda: False
        self.info = AudioInfo(
            sample_rate=file.samplerate,
            channels=file.channels,
            frames=file.frames if 0 <= file.frames < 2**62 else None,
            format=file.format,
            subtype=file.subtype,
            endian=file.endian,
            suffix=path.suffix.lower(),
            tags={name: text for name in TAGS if (text := getattr(file, name, ""))},
        )
        if _cut_short(file.extra_info):
            self.warnings.append(f"{path}: shorter than its header says (cut off?); using the part that is there")

    def blocks(self, frames: int = BLOCK) -> Iterator[Samples]:
        import soundfile

        done = 0
        while True:
            buffer = np.empty((frames, self.info.channels), np.float32)
            try:
                count = self._file.buffer_read_into(buffer, "float32")
            except soundfile.LibsndfileError as error:
                raise self._damaged(done, str(error.error_string).strip().rstrip(".")) from None
            if count:
                done += count
                yield np.ascontiguousarray(buffer[:count].T)
            if count < frames:
                break
        expected = self.info.frames or 0
        if done < expected and self.info.format not in _ESTIMATED:
            raise self._damaged(done, "the data ends early")
        if expected and abs(expected - done) > self.info.sample_rate // 10:
            self.warnings.append(
                f"{self.path}: {done / self.info.sample_rate:.1f} s found where the header says "
                f"{expected / self.info.sample_rate:.1f} s (cut off?); using the part that is there"
            )

    def _damaged(self, done: int, reason: str) -> SemambaError:
        seconds = done / self.info.sample_rate
        return SemambaError(f"{self.path}: damaged or cut off after {seconds:.1f} s ({reason}); copy it again")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_hopeless(path: Path) -> None:
    """What the operating system knows better than a decoder."""
    try:
        if path.is_dir():
            raise SemambaError(f"{path}: this is a folder, not a file")
        with open(path, "rb") as file:
            if not file.read(1):
                raise SemambaError(f"{path}: the file is empty (0 bytes)")
    except OSError as error:
        raise file_error(path, error, "read") from None


def _cut_short(log: str) -> bool:
    """Whether libsndfile's log tells of a data chunk longer than the file; streams of no stated length do not count."""
    found = re.search(r"^(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if not found:
        return False
    stated, present = int(found[1]), int(found[2])
    return present < stated < 0x7FFFF000
