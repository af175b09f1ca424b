"""One upload through the engine: what was asked for, what is refused, and the bytes of the answer, piece by piece."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from semamba import audio
from semamba.audio import AudioInfo
from semamba.errors import SemambaError
from semamba.web.settings import MAX_CHANNELS, MAX_RATE, ProblemError, Settings
from semamba.web.upload import Upload

if TYPE_CHECKING:
    from semamba.inference.engine import Options
    from semamba.inference.enhance import Enhancer

Samples = npt.NDArray[np.float32]

FORMATS = ("same", "wav", "flac", "mp3", "ogg", "opus", "aiff")
_MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".aiff": "audio/aiff",
    ".aif": "audio/aiff",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}
_PIECE = 1 << 18  # bytes of a finished file sent at once
_BLOCK_SECONDS = 1
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


@dataclass(frozen=True)
class Order:
    """The fields of the form."""

    model: str | None = None
    format: str = "same"
    stream: bool = False  # WAV, sent while it is made
    mix: float = 1.0
    attenuation_limit: float | None = None
    pcs: bool = False
    bandwidth: Literal["full", "model"] = "full"
    options: Options = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", make_options(self.pcs, self.attenuation_limit, self.mix, self.bandwidth))


def make_options(pcs: bool, attenuation_limit: float | None, mix: float, bandwidth: str = "full") -> Options:
    """Raises ProblemError 422 for values out of range."""
    from semamba.inference.engine import Options

    try:
        return Options(pcs, attenuation_limit, mix, bandwidth)  # type: ignore[arg-type]
    except SemambaError as error:
        raise ProblemError(422, str(error)) from None


def parse_order(fields: Mapping[str, str]) -> Order:
    """Raises ProblemError 422 naming the field."""
    known = ("model", "format", "stream", "mix", "attenuation_limit", "pcs", "bandwidth")
    for name in fields:
        if name not in known:
            raise ProblemError(422, f"there is no option '{name[:40]}'; there are: {', '.join(known)}")
    kind = fields.get("format", "").lower() or "same"
    if kind not in FORMATS:
        raise ProblemError(422, f"format must be one of {', '.join(FORMATS)}, got '{kind[:40]}'")
    stream = _switch(fields, "stream")
    if stream and kind not in ("wav", "same"):
        raise ProblemError(422, "stream=true gives WAV; leave format away or set it to wav")
    limit = _number(fields, "attenuation_limit")
    mix = _number(fields, "mix")
    return Order(
        model=fields.get("model") or None,
        format=kind,
        stream=stream,
        mix=1.0 if mix is None else mix,
        attenuation_limit=limit,
        pcs=_switch(fields, "pcs"),
        bandwidth=fields.get("bandwidth") or "full",  # type: ignore[arg-type]
    )


def _switch(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "").lower()
    if text not in _TRUE + _FALSE:
        raise ProblemError(422, f"{name} must be true or false, got '{text[:40]}'")
    return text in _TRUE


def _number(fields: Mapping[str, str], name: str) -> float | None:
    text = fields.get(name, "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise ProblemError(422, f"{name} must be a number, got '{text[:40]}'") from None


class Production:
    """`pieces()` runs in a worker thread; `cancel()` may be called from any other.

    The first piece of an ordinary production comes when all work is done, so that whatever goes wrong still becomes an
    answer in words; with `stream` the work goes on between pieces and an error breaks the answer off.
    """

    def __init__(self, enhancer: Enhancer, upload: Upload, order: Order, settings: Settings) -> None:
        self._enhancer, self._upload, self._order, self._settings = enhancer, upload, order, settings
        self._cancelled = threading.Event()
        self.headers: dict[str, str] = {}  # complete when the first piece is there
        self.warnings: list[str] = []

    def cancel(self) -> None:
        self._cancelled.set()

    def pieces(self) -> Iterator[bytes]:
        """Raises ProblemError in words for the sender: 413, 415 or 422."""
        try:
            info = self._checked()
            exact = info.frames is not None and info.format not in ("MP3", "OGG", audio.MEDIA)
            if self._order.stream and exact:
                yield from self._while_made(info)
            else:
                yield from self._when_complete(info)
        except SemambaError as error:
            raise ProblemError(422, self._in_words(error)) from None

    def _checked(self) -> AudioInfo:
        try:
            info = audio.probe(self._upload.path)
        except SemambaError as error:
            raise ProblemError(415, self._in_words(error)) from None
        if not 1 <= info.channels <= MAX_CHANNELS or not 1000 <= info.sample_rate <= MAX_RATE:
            raise ProblemError(
                422,
                f"{self._upload.name}: {info.channels} channels at {info.sample_rate} Hz; this server takes up to "
                f"{MAX_CHANNELS} channels at 1000 to {MAX_RATE} Hz",
            )
        self._measure((info.frames or 0) if info.format not in ("MP3", "OGG") else 0, info.sample_rate)
        return info

    def _measure(self, frames: int, sample_rate: int) -> None:
        """Raises ProblemError 413 when that much is too long: headers may lie, so what comes out is counted as well."""
        if frames > self._settings.max_seconds * sample_rate:
            limit = f"{self._settings.max_seconds:g} s, the limit of this server"
            raise ProblemError(413, f"{self._upload.name}: the sound is longer than {limit}")

    def _when_complete(self, info: AudioInfo) -> Iterator[bytes]:
        from semamba.inference.files import enhance_file

        source = self._upload.path
        suffix = source.suffix if self._order.format == "same" and not self._order.stream else ".wav"
        if self._order.format not in ("same", "wav"):
            suffix = f".{self._order.format}"
        target = source.with_name(f"result{suffix}")
        result = enhance_file(
            self._enhancer,
            source,
            target,
            self._order.options,
            progress=lambda done, _: self._measure(done, info.sample_rate),
            cancelled=self._cancelled.is_set,
        )
        self.warnings = [self._in_words(line) for line in result.warnings]
        self._describe(suffix, target.stat().st_size)
        with open(target, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def _while_made(self, info: AudioInfo) -> Iterator[bytes]:
        from semamba.inference.base import complaints
        from semamba.inference.files import CancelledError

        frames = info.frames or 0
        narrow = info.subtype in ("PCM_16", "PCM_U8", "PCM_S8", "ULAW", "ALAW")
        header = wav_header(info.sample_rate, info.channels, frames, narrow)
        self._describe(".wav", len(header) + frames * info.channels * (2 if narrow else 4))
        engine = self._enhancer.engine(info.channels, info.sample_rate, self._order.options)
        with audio.open_reader(self._upload.path) as reader:
            waiting = header
            for block in reader.blocks(_BLOCK_SECONDS * info.sample_rate):
                if self._cancelled.is_set():
                    raise CancelledError
                # The header leaves together with the first sound, so that an early error can still be told.
                done = engine.push(block)
                if done.shape[1]:
                    yield waiting + to_bytes(done, narrow)
                    waiting = b""
            yield waiting + to_bytes(engine.finish(), narrow)
        self.warnings = [*map(self._in_words, reader.warnings), *complaints(engine)]

    def _describe(self, suffix: str, size: int) -> None:
        stem = PurePosixPath(self._upload.name).stem or "sound"
        self.headers = {
            "content-type": _MEDIA_TYPES.get(suffix, "application/octet-stream"),
            "content-length": str(size),
            "content-disposition": f"attachment; filename*=UTF-8''{_quoted(f'{stem}.enhanced{suffix}')}",
        }

    def _in_words(self, text: object) -> str:
        """Messages name the file as its sender does, not where it lies here."""
        folder = re.escape(str(self._upload.path.parent))
        return re.sub(rf"{folder}[\\/][\w.]+", lambda _: self._upload.name, str(text))


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def wav_header(sample_rate: int, channels: int, frames: int, narrow: bool) -> bytes:
    """44 bytes before PCM of 16 bits (`narrow`) or 32-bit floats. Raises ProblemError 413 beyond 4 GB."""
    width = 2 if narrow else 4
    size = frames * channels * width
    if size > 2**32 - 2**12:
        raise ProblemError(413, "the result would be larger than a WAV file can be; leave stream away")
    form = struct.pack("<HHIIHH", 1 if narrow else 3, channels, sample_rate, sample_rate * channels * width,
                       channels * width, 8 * width)  # fmt: skip
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
    )


def to_bytes(wave: Samples, narrow: bool) -> bytes:
    """(C, n) -> interleaved little-endian PCM of 16 bits, or 32-bit floats."""
    interleaved = np.ascontiguousarray(wave.T)
    if narrow:
        return np.clip(np.rint(interleaved * 32768.0), -32768, 32767).astype("<i2").tobytes()
    return interleaved.astype("<f4").tobytes()


def from_bytes(data: bytes, channels: int, narrow: bool) -> Samples:
    """The reverse. Raises ValueError for a number of bytes that is no whole frame."""
    flat = np.frombuffer(data, "<i2" if narrow else "<f4")
    wave = flat.reshape(-1, channels).T.astype(np.float32)
    return np.ascontiguousarray(wave / np.float32(32768) if narrow else wave)
