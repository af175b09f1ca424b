"""Which containers exist, what a file says about itself, and which container an output gets."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from semamba.errors import SemambaError

# Suffix -> libsndfile container, and a subtype where the suffix promises one.
_CONTAINERS: dict[str, tuple[str, str | None]] = {
    ".wav": ("WAV", None),
    ".wave": ("WAV", None),
    ".flac": ("FLAC", None),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", None),
    ".oga": ("OGG", None),
    ".opus": ("OGG", "OPUS"),
    ".aif": ("AIFF", None),
    ".aiff": ("AIFF", None),
    ".aifc": ("AIFF", None),
    ".au": ("AU", None),
    ".snd": ("AU", None),
    ".caf": ("CAF", None),
    ".w64": ("W64", None),
    ".rf64": ("RF64", None),
}
AUDIO_SUFFIXES = frozenset(_CONTAINERS)
# What libsndfile does not know and PyAV does.
MEDIA_SUFFIXES = frozenset(
    (".aac", ".m4a", ".m4b", ".m4v", ".mp4", ".mov", ".mkv", ".mka", ".webm", ".avi", ".wma", ".wmv", ".asf", ".flv")
    + (".3gp", ".amr", ".ac3", ".ts", ".mts", ".mpg", ".mpeg")
)
# The tags that libsndfile knows.
TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")
MEDIA = "MEDIA"  # AudioInfo.format of a file read through PyAV

_BYTES = {"PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_WIDE = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32"}
_RIFF_LIMIT = 2**32 - 2**20  # bytes; the sizes in a WAV header are 32-bit


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself; `frames` is samples for each channel, None when only reading can tell."""

    sample_rate: int  # Hz
    channels: int
    frames: int | None
    format: str  # libsndfile's name of the container, or MEDIA
    subtype: str  # libsndfile's name of the sample format, or FFmpeg's of the codec
    endian: str = "FILE"
    suffix: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    start: float = 0.0  # seconds on the clock of a video at which its sound begins

    @property
    def seconds(self) -> float | None:
        return None if self.frames is None else self.frames / self.sample_rate


def output_format(source: AudioInfo, target: str | Path) -> AudioInfo:
    """`source` with the container and subtype that a file named `target` gets.

    The same suffix keeps container and subtype; another suffix keeps the subtype where the container can hold it.
    Raises SemambaError for a suffix nobody can write.
    """
    import soundfile

    suffix = Path(target).suffix.lower()
    if suffix in MEDIA_SUFFIXES:
        codec = source.subtype if source.format == MEDIA else ""
        return replace(source, format=MEDIA, subtype=codec, suffix=suffix)
    if suffix == source.suffix and source.format != MEDIA:
        container, subtype, endian = source.format, source.subtype, source.endian
    elif suffix in _CONTAINERS:
        container, promised = _CONTAINERS[suffix]
        subtype, endian = promised or source.subtype, "FILE"
        if subtype.startswith("MPEG") and container != "MP3":
            # A WAV file may hold MP3, but hardly anybody expects it to, and not every rate can be written so.
            subtype = "PCM_16"
    else:
        known = " ".join(sorted(AUDIO_SUFFIXES))
        raise SemambaError(f"{target}: cannot write files ending in '{suffix}'; use one of {known}")
    if not soundfile.check_format(container, subtype, endian):
        endian = "FILE"
    if not soundfile.check_format(container, subtype):
        wide = source.subtype in _WIDE and soundfile.check_format(container, "PCM_24")
        subtype = "PCM_24" if wide else soundfile.default_subtype(container)
    size = (source.frames or 0) * source.channels * _BYTES.get(subtype, 4)
    if container in ("WAV", "WAVEX") and size > _RIFF_LIMIT:
        container, endian = "RF64", "FILE"
    return replace(source, format=container, subtype=subtype, endian=endian, suffix=suffix)


def native(path: Path) -> str | bytes:
    """For soundfile: as text it refuses names that are not UTF-8."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def file_error(path: str | Path, error: OSError, doing: str) -> SemambaError:
    """One line for what the operating system said while `doing` ("read", "write")."""
    advice = {
        errno.ENOENT: "no such file or folder",
        errno.EACCES: "permission denied" + ("; choose another place with -o" if doing == "write" else ""),
        errno.EPERM: "permission denied" + ("; choose another place with -o" if doing == "write" else ""),
        errno.EROFS: "the disk is read-only; choose another place with -o",
        errno.ENOSPC: "the disk is full; free some space or choose another place with -o",
        errno.EDQUOT: "the disk quota is used up; free some space or choose another place with -o",
        errno.EFBIG: "the file would be larger than this system allows; choose another place with -o",
        errno.EISDIR: "this is a folder, not a file",
        errno.ENOTDIR: "a part of this path is a file, not a folder",
        errno.ENAMETOOLONG: "the name is too long for this disk",
    }.get(error.errno or 0, error.strerror or str(error))
    return SemambaError(f"{path}: cannot {doing}: {advice}")
