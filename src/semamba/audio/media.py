"""Video and AAC through PyAV: the first audio track is read in blocks; on writing, the others are copied unchanged.

The only file that imports `av`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from semamba.audio.clock import Clock
from semamba.audio.formats import MEDIA, AudioInfo
from semamba.errors import SemambaError

Samples = npt.NDArray[np.float32]

# Suffix -> FFmpeg's container for writing, and the audio codec when the source's own cannot be written there.
_CONTAINERS = {
    ".aac": ("adts", "aac"),
    ".m4a": ("ipod", "aac"),
    ".m4b": ("ipod", "aac"),
    ".m4v": ("mp4", "aac"),
    ".mp4": ("mp4", "aac"),
    ".mov": ("mov", "aac"),
    ".mkv": ("matroska", "aac"),
    ".mka": ("matroska", "aac"),
    ".webm": ("webm", "libopus"),
    ".avi": ("avi", "libmp3lame"),
    ".flv": ("flv", "aac"),
    ".wma": ("asf", "wmav2"),
    ".wmv": ("asf", "wmav2"),
    ".asf": ("asf", "wmav2"),
    ".3gp": ("3gp", "aac"),
    ".ac3": ("ac3", "ac3"),
    ".ts": ("mpegts", "aac"),
    ".mts": ("mpegts", "aac"),
    ".mpg": ("mpeg", "mp2"),
    ".mpeg": ("mpeg", "mp2"),
}
# About the file that was read, not about what it holds.
_OWN_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "timecode"}
_SOUND_ONLY = {"adts", "ipod", "ac3"}
_ONE_SOUND = {"adts", "ac3", "flv"}  # room for one audio track
_ENCODERS = {"opus": "libopus", "vorbis": "libvorbis", "mp3": "libmp3lame"}  # codec -> the encoder that is any good
_BIT_RATE = 96_000  # bits a second for each channel when the source does not say


class MediaReader:
    """The first audio track of a file that FFmpeg reads; `info.frames` is an estimate from the stated duration."""

    def __init__(self, path: Path) -> None:
        av = _import_av(path)
        self.path = path
        self.warnings: list[str] = []
        try:
            self._container = av.open(str(path), metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise SemambaError(f"{path}: not a readable audio or video file ({_reason(error)})") from None
        if not self._container.streams.audio:
            self._container.close()
            raise SemambaError(f"{path}: has no audio track")
        self._stream = self._container.streams.audio[0]
        context = self._stream.codec_context
        duration = self._stream.duration and self._stream.duration * self._stream.time_base
        if duration is None and self._container.duration:
            duration = Fraction(self._container.duration, av.time_base)
        begin = Fraction(self._container.start_time or 0, av.time_base)
        if self._stream.start_time is not None:
            begin = self._stream.start_time * self._stream.time_base
        self.info = AudioInfo(
            sample_rate=context.sample_rate,
            channels=context.layout.nb_channels,
            frames=round(duration * context.sample_rate) if duration else None,
            format=MEDIA,
            subtype=context.codec.canonical_name,
            suffix=path.suffix.lower(),
            tags={key.lower(): text for key, text in self._container.metadata.items() if key.lower() not in _OWN_TAGS},
            start=float(begin),
        )

    def blocks(self, frames: int = 65536) -> Iterator[Samples]:
        import av

        done, count = 0, 0
        waiting: list[Samples] = []
        try:
            for piece in self._pieces():
                waiting.append(piece)
                count += piece.shape[1]
                while count >= frames:
                    joined = np.concatenate(waiting, axis=1)
                    waiting, count = [joined[:, frames:]], count - frames
                    done += frames
                    yield joined[:, :frames]
        except (av.FFmpegError, OSError) as error:
            seconds = done / self.info.sample_rate
            raise SemambaError(f"{self.path}: damaged or cut off after {seconds:.1f} s ({_reason(error)})") from None
        rest = np.concatenate(waiting, axis=1) if waiting else np.zeros((self.info.channels, 0), np.float32)
        for start in range(0, rest.shape[1], frames):
            yield rest[:, start : start + frames]

    def _pieces(self) -> Iterator[Samples]:
        """The decoded sound, with silence where the file has none, so that what follows keeps its time."""
        import av

        rate = self.info.sample_rate
        convert = av.AudioResampler(format="fltp", layout=self._stream.layout, rate=rate)
        frames = (frame for packet in self._container.demux(self._stream) for frame in packet.decode())
        clock = Clock(self.info.seconds or 0.0)
        for frame, following in pairwise(chain(frames, [None])):
            silence = round(clock.gap(frame, following) * rate)
            for start in range(0, silence, rate):
                yield np.zeros((self.info.channels, min(rate, silence - start)), np.float32)
            for piece in convert.resample(frame):
                yield np.asarray(piece.to_ndarray(), np.float32)
        for piece in convert.resample(None):
            yield np.asarray(piece.to_ndarray(), np.float32)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MediaEncoder:
    """Encodes audio into a container of FFmpeg in place of the first audio track of `source`.

    Its pictures, subtitles and further audio tracks travel along, packet by packet.
    """

    _source: Any = None
    _audio: Any = None

    def __init__(self, temporary: Path, info: AudioInfo, name: Path, source: Path | None) -> None:
        av = _import_av(name)
        self._name, self._info = name, info
        self.warnings: list[str] = []
        self._packets: Iterator[tuple[Any, Any]] = iter(())
        self._next: tuple[Any, Any] | None = None
        try:
            container, fallback = _CONTAINERS[name.suffix.lower()]
        except KeyError:
            raise SemambaError(f"{name}: files ending in '{name.suffix}' can only be read; use -o NAME.wav") from None
        try:
            self._output = av.open(str(temporary), "w", format=container)
            self._output.metadata.update(info.tags)
            if source is not None:
                self._source = av.open(str(source), metadata_errors="replace")
            copied = self._add_tracks(info, container, fallback)
            # Beside a picture the sound keeps its time; alone it begins at once. Transport streams go on from any time,
            # other files begin near zero.
            self._zero = Fraction(0)
            if copied and container != "mpegts":
                self._zero = Fraction(self._source.start_time or 0, av.time_base)
            self._position = round((info.start - self._zero) * info.sample_rate) if copied else 0
            if copied:
                packets = self._source.demux([self._source.streams[index] for index in copied])
                self._packets = ((self._moved(packet), copied[packet.stream.index]) for packet in packets)
                self._next = next(self._packets, None)
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abandon()
            raise SemambaError(
                f"{name}: cannot write {info.channels} channels at {info.sample_rate} Hz here ({_reason(error)}); "
                "use -o NAME.wav"
            ) from None

    def write(self, block: Samples) -> None:
        import av

        if not block.shape[1]:
            return  # FFmpeg takes a frame without samples for a failure
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
        frame.sample_rate = self._info.sample_rate
        frame.pts, frame.time_base = self._position, Fraction(1, self._info.sample_rate)
        self._position += block.shape[1]
        self._encode(frame)
        self._copy_until(self._position / self._info.sample_rate)

    def close(self) -> None:
        self._encode(None)
        self._copy_until(float("inf"))
        self.abandon()

    def abandon(self) -> None:
        for container in (getattr(self, "_output", None), self._source):
            if container is not None:
                container.close()

    def _encode(self, frame: Any) -> None:
        import av

        try:
            packets = [packet for piece in self._convert.resample(frame) for packet in self._audio.encode(piece)]
            if frame is None:
                packets += self._audio.encode(None)
        except av.FFmpegError as error:
            raise SemambaError(f"{self._name}: cannot write: {_reason(error)}") from None
        self._mux(packets)

    def _mux(self, packets: Any) -> None:
        import av

        try:
            self._output.mux(packets)
        except av.FFmpegError as error:
            raise SemambaError(f"{self._name}: cannot write: {_reason(error)}") from None

    def _copy_until(self, seconds: float) -> None:
        """Copy picture packets up to this time, so that the container stays interleaved and nothing piles up."""
        while self._next is not None:
            packet, stream = self._next
            if packet.dts is not None:
                if float(packet.dts * packet.time_base) > seconds:
                    return
                packet.stream = stream
                self._mux(packet)
            self._next = next(self._packets, None)

    def _moved(self, packet: Any) -> Any:
        ticks = round(self._zero / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - ticks
        packet.dts = None if packet.dts is None else packet.dts - ticks
        return packet

    def _add_tracks(self, info: AudioInfo, container: str, fallback: str) -> dict[int, Any]:
        """Tracks in the order of the source, so that the enhanced one stays the first of sound; returns the copies."""
        kinds = {"audio"} if container in _SOUND_ONLY else {"audio", "video", "subtitle"}
        streams = [stream for stream in self._source.streams if stream.type in kinds] if self._source else []
        copied: dict[int, Any] = {}
        left_out = []
        for stream in streams:
            if stream.type == "audio" and self._audio is None:
                track = self._audio = self._add_audio(info, container, fallback)
            elif track := self._copy_of(stream, container):
                copied[stream.index] = track
            else:
                left_out.append(f"{stream.type} ({getattr(stream.codec_context, 'name', 'unknown')})")
                continue
            track.metadata.update({key: text for key, text in stream.metadata.items() if key in ("language", "title")})
        if self._audio is None:
            self._audio = self._add_audio(info, container, fallback)
        if left_out:
            self.warnings.append(f"{self._name}: this kind of file cannot hold, so left out: {', '.join(left_out)}")
        return copied

    def _copy_of(self, stream: Any, container: str) -> Any:
        """A track for the packets of this stream; None where the container has no place for it."""
        import av

        cover = stream.type == "video" and stream.disposition & av.stream.Disposition.attached_pic
        if cover or (stream.type == "audio" and container in _ONE_SOUND):
            return None
        try:
            return self._output.add_stream_from_template(stream)
        except (av.FFmpegError, ValueError):
            return None

    def _add_audio(self, info: AudioInfo, container: str, fallback: str) -> Any:
        import av

        names = [_ENCODERS.get(info.subtype, info.subtype), fallback]
        supported = self._output.supported_codecs
        for name in names:
            try:
                codec = av.codec.Codec(name, "w")
            except (av.FFmpegError, ValueError):
                continue
            if codec.canonical_name in supported or codec.name in supported:
                break
        self._layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(info.channels, f"{info.channels}C")
        audio = self._output.add_stream(codec.name, rate=info.sample_rate, layout=self._layout)
        audio.bit_rate = _BIT_RATE * info.channels
        formats = codec.audio_formats or [av.AudioFormat("fltp")]
        self._convert = av.AudioResampler(
            format=formats[0].name, layout=self._layout, rate=info.sample_rate, frame_size=audio.frame_size or 0
        )
        return audio


def _import_av(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise SemambaError(
            f"{path}: video and AAC need the optional library PyAV; install it with: pip install 'semamba[video]'"
        ) from None
    return av


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
