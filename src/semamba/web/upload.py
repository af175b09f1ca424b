"""A multipart body becomes fields and one file on disk, measured while it is read.

The only file that imports `python_multipart`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from semamba.audio import AUDIO_SUFFIXES, MEDIA_SUFFIXES
from semamba.web.settings import ProblemError

_FIELD_BYTES = 4096  # of all fields together
_HEADER_BYTES = 4096  # of one part
_PARTS = 16
_PATIENCE = 20  # s that a body may stand still, ...
_LEAST_RATE = 2000  # ... or be late against so many bytes a second
_WRITE = 1 << 20  # bytes gathered before the disk is bothered

# What FFmpeg may be shown: playlists and the like could make it open other files or addresses.
_MEDIA_STARTS = (b"\x1aE\xdf\xa3", b"RIFF", b"0&\xb2u", b"FLV", b"#!AMR", b"\x0bw", b"ID3", b"\x00\x00\x01", b"G")
_MEDIA_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_STARTS = {
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"FORM": ".aiff",
    b".snd": ".au",
    b"caff": ".caf",
    b"ID3": ".mp3",
    b"\x1aE\xdf\xa3": ".mka",
}


@dataclass
class Upload:
    """`path` never holds anything that the client chose but a known suffix; `name` is for messages and headers."""

    path: Path
    name: str
    fields: dict[str, str] = field(default_factory=dict)


async def receive_upload(
    headers: Mapping[str, str], body: AsyncIterator[bytes], folder: Path, max_bytes: int
) -> Upload:
    """Read `body` into `folder`. Raises ProblemError 408, 413, 415, 422 or 400, as soon as there is a reason."""
    kind, parameters = parse_options_header(headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
        raise ProblemError(415, "send the sound as multipart/form-data with a part named 'file'")
    too_large = ProblemError(413, f"the file is larger than {max_bytes / 1e6:g} MB, the limit of this server")
    stated = headers.get("content-length", "")
    # The rest of a body beside the file is small and bounded below.
    if stated.isdigit() and int(stated) > max_bytes + 2 * _PARTS * _HEADER_BYTES:
        raise too_large
    with open(folder / "upload", "wb") as spool:
        form = _Form(parameters[b"boundary"], spool, max_bytes, too_large)
        try:
            async for chunk in _timely(body):
                form.feed(chunk)
                if len(form.gathered) >= _WRITE:
                    await asyncio.to_thread(form.write)
            form.finish()
        except FormParserError as error:
            raise ProblemError(400, f"the multipart body is malformed ({error})") from None
        await asyncio.to_thread(form.write)
    if form.file_name is None:
        raise ProblemError(422, "the part named 'file' is missing")
    if not form.file_bytes:
        raise ProblemError(422, "the file is empty (0 bytes)")
    name = clean_name(form.file_name)
    path = folder / f"input{_suffix(folder / 'upload', name)}"
    (folder / "upload").rename(path)
    return Upload(path, name, form.fields)


async def _timely(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of `body`, as long as they come: what waits here holds a place that others want."""
    started, received = time.monotonic(), 0
    while True:
        try:
            async with asyncio.timeout(started + _PATIENCE + received / _LEAST_RATE - time.monotonic()):
                chunk = await anext(body, None)
        except TimeoutError:
            raise ProblemError(408, "the file comes too slowly") from None
        if chunk is None:
            return
        received += len(chunk)
        yield chunk


class _Form:
    """Callbacks of the push parser; small parts are kept, the file goes to disk."""

    def __init__(self, boundary: bytes, spool: BinaryIO, max_bytes: int, too_large: ProblemError) -> None:
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self.file_bytes = 0
        self.gathered = bytearray()
        self._spool, self._max_bytes, self._too_large = spool, max_bytes, too_large
        self._parts = self._field_bytes = 0
        self._name: str = ""
        self._value: bytearray | None = None  # None inside the file
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._add_header(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._add_header(1, data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": lambda data, start, end: self._data(data[start:end]),
                "on_part_end": self._close,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def finish(self) -> None:
        self._parser.finalize()
        if not self._ended:
            raise ProblemError(400, "the multipart body ends early")

    def write(self) -> None:
        self._spool.write(self.gathered)
        self.gathered.clear()

    def _begin(self) -> None:
        self._parts += 1
        self._disposition = b""
        self._header = [bytearray(), bytearray()]
        if self._parts > _PARTS:
            raise ProblemError(422, f"more than {_PARTS} parts in the form")

    def _add_header(self, which: int, data: bytes) -> None:
        self._header[which] += data
        if len(self._header[which]) > _HEADER_BYTES:
            raise ProblemError(400, "a header inside the form is too long")

    def _end_header(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = [bytearray(), bytearray()]

    def _open(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        self._name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise ProblemError(400, "a part of the form has no name")
        if self._name in self.fields or (self._name == "file" and self.file_name is not None):
            raise ProblemError(422, f"'{self._name[:40]}' is given twice")
        if self._name == "file":
            self.file_name = parameters.get(b"filename", b"").decode("utf-8", "replace")
            self._value = None
        else:
            self._value = bytearray()

    def _data(self, data: bytes) -> None:
        if self._value is None:
            self.file_bytes += len(data)
            if self.file_bytes > self._max_bytes:
                raise self._too_large
            self.gathered += data
            return
        self._field_bytes += len(data)
        if self._field_bytes > _FIELD_BYTES:
            raise ProblemError(422, "the fields beside the file are too long")
        self._value += data

    def _close(self) -> None:
        if self._value is not None:
            try:
                self.fields[self._name] = self._value.decode("utf-8")
            except UnicodeDecodeError:
                raise ProblemError(422, f"'{self._name[:40]}' is not UTF-8 text") from None

    def _end(self) -> None:
        self._ended = True


def clean_name(name: str) -> str:
    """The last part of whatever path came along, printable and short; never used to open anything."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(letter for letter in last if letter.isprintable() and letter not in '"/:<>|?*;').strip(" .")
    return kept[-100:] or "sound"


def _suffix(path: Path, name: str) -> str:
    """Suffix by which the reader is chosen, from the name or, failing that, from the first bytes."""
    with open(path, "rb") as file:
        start = file.read(16)
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        return suffix
    if suffix in MEDIA_SUFFIXES:
        synchronised = start[0] == 0xFF and start[1:2] >= b"\xe0"  # AAC and MPEG audio without a container
        if not (synchronised or start.startswith(_MEDIA_STARTS) or start[4:8] in _MEDIA_BOXES):
            raise ProblemError(415, f"{name}: this is not what its name says")
        return suffix
    if start[4:8] in _MEDIA_BOXES:
        return ".mp4"
    return next((found for magic, found in _STARTS.items() if start.startswith(magic)), ".wav")
