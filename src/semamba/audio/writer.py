"""Writing files in blocks: under a temporary name in the same folder, renamed when complete, removed when not."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from semamba.audio.formats import MEDIA, TAGS, AudioInfo, file_error, native, output_format
from semamba.errors import SemambaError

Samples = npt.NDArray[np.float32]

# Bits of the formats that libsndfile writes rounded down, which shifts everything by half a step. PCM_32 needs nothing:
# its steps are finer than those of float32.
_ROUNDED_DOWN = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24}


class Encoder(Protocol):
    """Puts samples into a file that already has its temporary name."""

    def write(self, block: Samples) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None:
        """Let go of the file, whatever state it is in."""


class Writer:
    """Context manager: `write(block)` any number of times; the target appears only after a clean exit.

    Any exception inside (Ctrl-C too) removes the temporary file; an existing target stays as it was.
    """

    def __init__(self, path: Path, info: AudioInfo, media_source: Path | None = None) -> None:
        self.path, self.info = path, info
        self.warnings: list[str] = []  # about what the file cannot hold
        self._frames = 0
        self._media_source = media_source
        self._temporary = path.parent / f"{_mark(path)}{secrets.token_hex(6)}.part"
        self._encoder: Encoder | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise SemambaError(f"{self.path}: this is a folder, not a file")
            os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise file_error(self.path, error, "write") from None
        try:
            self._encoder = self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, block: Samples) -> None:
        """(channels, k) float32; integer formats clip at full scale."""
        if self._encoder is None:
            raise ValueError("the writer is not open")
        try:
            self._encoder.write(block)
        except OSError as error:
            raise file_error(self.path, error, "write") from None
        self._frames += block.shape[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        encoder, self._encoder = self._encoder, None
        if kind is not None:
            try:
                with contextlib.suppress(Exception):
                    if encoder is not None:
                        encoder.abandon()
            finally:
                self._discard()
            return
        try:
            if encoder is not None:
                encoder.close()
            self._check_complete()
            if self.path.exists():
                shutil.copymode(self.path, self._temporary)
            os.replace(self._temporary, self.path)
        except OSError as reason:
            self._discard()
            raise file_error(self.path, reason, "write") from None
        except BaseException:
            self._discard()
            raise

    def _open(self) -> Encoder:
        if self.info.format == MEDIA:
            from semamba.audio.media import MediaEncoder

            encoder = MediaEncoder(self._temporary, self.info, self.path, self._media_source)
            self.warnings += encoder.warnings
            return encoder
        return SoundEncoder(self._temporary, self.info, self.path)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _check_complete(self) -> None:
        """libsndfile flushes on closing and does not report a disk that filled up then: look at what arrived.

        A file without samples is whole when it can be read at all; of some formats nothing is written then.
        """
        import soundfile

        if self.info.format == MEDIA:
            complete = self._frames > 0 or self._temporary.stat().st_size > 0
        else:
            try:
                complete = soundfile.info(native(self._temporary)).frames >= self._frames
            except soundfile.LibsndfileError:
                complete = False
        if complete:
            return
        if not self._frames:
            raise SemambaError(f"{self.path}: a file of this format needs samples, and there are none; use -o NAME.wav")
        raise SemambaError(f"{self.path}: cannot write: the end did not reach the disk; is it full?")


class SoundEncoder:
    """A file that libsndfile writes."""

    def __init__(self, temporary: Path, info: AudioInfo, name: Path) -> None:
        import soundfile

        self._name = name
        self._bits = _ROUNDED_DOWN.get(info.subtype)
        # Given minutes at once, libsndfile's Vorbis encoder overflows its stack.
        self._step = 65536
        options: dict[str, Any] = {"format": info.format, "subtype": info.subtype, "endian": info.endian}
        try:
            self._file = soundfile.SoundFile(native(temporary), "w", info.sample_rate, info.channels, **options)
        except (soundfile.LibsndfileError, ValueError, TypeError) as error:
            reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
            kind = f"{info.channels} channels at {info.sample_rate} Hz as {info.format}/{info.subtype}"
            raise SemambaError(
                f"{name}: cannot write {kind} ({reason}); choose another suffix with -o, for example .wav"
            ) from None
        for tag in filter(info.tags.get, TAGS):
            # Not every container holds every tag.
            with contextlib.suppress(soundfile.LibsndfileError, AttributeError):
                setattr(self._file, tag, info.tags[tag])

    def write(self, block: Samples) -> None:
        import soundfile

        interleaved = np.ascontiguousarray(block.T)
        try:
            for start in range(0, len(interleaved), self._step):
                part = interleaved[start : start + self._step]
                self._file.write(part if self._bits is None else _round(part, self._bits))
        except (soundfile.LibsndfileError, AssertionError) as error:
            # An AssertionError is soundfile's way to say that fewer samples were written than given.
            reason = str(getattr(error, "error_string", "")).strip().rstrip(".") or "the disk is full?"
            raise SemambaError(f"{self._name}: cannot write: {reason}; free some space or choose another -o") from None

    def close(self) -> None:
        self._file.close()

    abandon = close


def _round(samples: Samples, bits: int) -> Samples:
    """To the nearest step of an integer format, within its range; exact, as float32 holds 24 bits."""
    scale = np.float32(2 ** (bits - 1))
    return np.clip(np.rint(samples * scale), -scale, scale - 1) / scale


def open_writer(
    path: str | Path, source: AudioInfo, frames: int | None = None, media_source: Path | None = None
) -> Writer:
    """A Writer whose container and subtype follow `source` as far as the suffix of `path` allows.

    `media_source` is a video whose other tracks are copied beside the new audio.
    """
    if frames is not None:
        from dataclasses import replace

        source = replace(source, frames=frames)
    return Writer(Path(path), output_format(source, path), media_source)


def remove_leftovers(targets: Iterable[Path]) -> int:
    """Remove temporary files of writers of these targets that were killed; returns how many there were.

    Only for targets that nobody writes at the moment; writers of others in the same folders are left alone.
    """
    marks: dict[Path, set[str]] = {}
    for target in targets:
        marks.setdefault(target.parent, set()).add(_mark(target))
    stale = [
        path
        for folder, ours in marks.items()
        if folder.is_dir()
        for path in folder.glob(".semamba-*.part")
        if path.name[: len(_mark(path))] in ours
    ]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _mark(target: Path) -> str:
    """How temporary names of this target begin, so that a killed writer's file can be told from those of others."""
    return f".semamba-{zlib.crc32(os.fsencode(target.name)):08x}-"


def write(path: str | Path, wave: Samples, sample_rate: int, subtype: str | None = None) -> None:
    """A whole (n,) or (channels, n) signal; PCM_16 in containers that hold it unless `subtype` says otherwise."""
    wave = np.atleast_2d(np.asarray(wave, dtype=np.float32))
    suffix = Path(path).suffix.lower()
    info = AudioInfo(sample_rate, wave.shape[0], wave.shape[1], "", subtype or "PCM_16", suffix="")
    if not suffix:
        raise SemambaError(f"{path}: the name needs a suffix such as .wav")
    with open_writer(path, info) as writer:
        writer.write(wave)
