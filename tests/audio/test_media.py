"""Video and AAC: without the optional library one clear line, with it the sound and the picture."""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semamba import audio
from semamba.audio.clock import Clock
from semamba.errors import SemambaError


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "talk.mp4"
    path.write_bytes(b"something")
    with pytest.raises(SemambaError, match=r"pip install 'semamba\[video\]'"):
        audio.open_reader(path)


def make_video(
    path: Path,
    seconds: int = 3,
    rate: int = 44_100,
    codec: str = "mpeg4",
    begin: int = 0,
    late: float = 0.0,
    gap: tuple[float, float] = (np.inf, 0.0),
    second: str | None = None,
    **tags: str,
) -> np.ndarray:
    """A video of one colour a frame with a stereo tone beside it.

    The picture begins at `begin` seconds, the sound `late` seconds after it; `gap` is (when in the sound, seconds).
    `second` is the codec of another audio track, a tone of 300 Hz.
    """
    av: Any = pytest.importorskip("av")
    time = np.arange(seconds * rate) / rate
    tone = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 880 * time)]).astype(np.float32) * 0.3
    with av.open(str(path), "w") as container:
        picture = container.add_stream(codec, rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=rate, layout="stereo")
        sound.metadata["language"] = "eng"
        container.metadata.update(tags)
        other = second and container.add_stream(second, rate=rate, layout="mono")
        if other:
            other.metadata["language"] = "deu"
        for index in range(seconds * 25):
            image = av.VideoFrame.from_ndarray(np.full((72, 64), index * 2, np.uint8), format="yuv420p")
            image.pts, image.time_base = index + 25 * begin, Fraction(1, 25)
            container.mux(picture.encode(image))
        container.mux(picture.encode(None))
        for start in range(0, tone.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 1024]), format="fltp")
            pts = start + round((begin + late + gap[1] * (start >= gap[0] * rate)) * rate)
            frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        if other:
            convert = av.AudioResampler(other.format.name, "mono", rate, other.frame_size)
            low = av.AudioFrame.from_ndarray(
                np.sin(2 * np.pi * 300 * time[None]).astype(np.float32) * 0.3, "fltp", "mono"
            )
            low.sample_rate = rate
            for piece in [*convert.resample(low), *convert.resample(None)]:
                container.mux(other.encode(piece))
            container.mux(other.encode(None))
    return tone


def test_video_is_read_in_blocks_and_gets_its_picture_back(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    source, target = tmp_path / "talk.mp4", tmp_path / "out.mp4"
    tone = make_video(source)
    with (
        audio.open_reader(source) as reader,
        audio.open_writer(target, reader.info, media_source=source) as writer,
    ):
        blocks = list(reader.blocks(4000))
        for block in blocks:
            writer.write(block)
    wave = np.concatenate(blocks, axis=1)
    assert max(block.shape[1] for block in blocks) <= 4000
    assert abs(wave.shape[1] - tone.shape[1]) <= 1024
    again, rate = audio.read(target)
    assert rate == 44_100 and abs(again.shape[1] - wave.shape[1]) <= 2048
    shared = min(wave.shape[1], again.shape[1]) - 2000
    assert np.corrcoef(wave[0, 2000:shared], again[0, 2000:shared])[0, 1] > 0.99
    with av.open(str(source)) as first, av.open(str(target)) as second:
        assert [s.type for s in second.streams] == ["video", "audio"]
        pictures = [[bytes(p) for p in c.demux(video=0) if p.size] for c in (first, second)]
        assert pictures[0] == pictures[1]


def test_a_video_that_is_given_up_is_not_copied_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    make_video(source, seconds=5)
    from semamba.audio.media import MediaEncoder

    muxed: list[int] = []
    mux = MediaEncoder._mux
    monkeypatch.setattr(MediaEncoder, "_mux", lambda self, packets: (muxed.append(1), mux(self, packets))[1])
    with (
        pytest.raises(KeyboardInterrupt),
        audio.open_reader(source) as reader,
        audio.open_writer(target, reader.info, media_source=source) as writer,
    ):
        writer.write(np.zeros((2, 44_100), np.float32))
        before = len(muxed)
        raise KeyboardInterrupt
    assert 0 < before == len(muxed) and [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_sound_of_a_video_as_wav_and_wav_as_m4a(tmp_path: Path) -> None:
    pytest.importorskip("av")
    source = tmp_path / "talk.mp4"
    make_video(source)
    with audio.open_reader(source) as reader, audio.open_writer(tmp_path / "a.wav", reader.info) as writer:
        for block in reader.blocks():
            writer.write(block)
    info = audio.probe(tmp_path / "a.wav")
    assert (info.format, info.subtype, info.channels, info.sample_rate) == ("WAV", "PCM_16", 2, 44_100)
    with audio.open_reader(tmp_path / "a.wav") as reader, audio.open_writer(tmp_path / "b.m4a", reader.info) as writer:
        for block in reader.blocks():
            writer.write(block)
    assert audio.probe(tmp_path / "b.m4a").channels == 2


def test_damaged_video_and_video_without_sound(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(SemambaError, match=r"bad.mp4: not a readable"):
        audio.read(tmp_path / "bad.mp4")


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.mkv"])
def test_empty_blocks_are_nothing(tmp_path: Path, name: str) -> None:
    """Models that look ahead hand out nothing at first, and very short sounds may come out whole only at the end."""
    pytest.importorskip("av")
    info = audio.AudioInfo(48_000, 1, None, audio.MEDIA, "aac", suffix=name[1:])
    with audio.open_writer(tmp_path / name, info) as writer:
        for frames in (0, 5000, 0):
            writer.write(np.zeros((1, frames), np.float32))
    assert 5000 <= audio.read(tmp_path / name)[0].shape[1] <= 7200


def copy(source: Path, target: Path, warnings: list[str] | None = None) -> np.ndarray:
    with (
        audio.open_reader(source) as reader,
        audio.open_writer(target, reader.info, media_source=source) as writer,
    ):
        blocks = list(reader.blocks())
        for block in blocks:
            writer.write(block)
        assert writer.warnings == (warnings or [])
    return np.concatenate(blocks, axis=1)


def onset(path: Path) -> float:
    """Seconds from the first picture to the tone."""
    av: Any = pytest.importorskip("av")
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1)
            if loud.size:
                return float(frame.time + loud[0] / frame.sample_rate - picture.time)
    raise AssertionError("no sound")


@pytest.mark.parametrize(
    ("name", "codec", "begin", "late"),
    [
        ("a.mp4", "mpeg4", 0, 0.0),
        ("a.mp4", "mpeg4", 0, 0.5),
        ("a.mov", "mpeg4", 0, 0.5),
        ("a.mkv", "mpeg4", 0, 0.0),
        ("a.mkv", "mpeg4", 0, 0.5),
        ("a.ts", "mpeg2video", 10, 0.0),
        ("a.ts", "mpeg2video", 10, 0.5),
        ("a.flv", "flv", 0, 0.5),
    ],
)
def test_sound_and_picture_stay_in_step(tmp_path: Path, name: str, codec: str, begin: int, late: float) -> None:
    pytest.importorskip("av")
    source, target = tmp_path / name, tmp_path / f"out-{name}"
    make_video(source, codec=codec, begin=begin, late=late)
    copy(source, target)
    assert onset(source) == pytest.approx(late, abs=0.01)
    assert onset(target) == pytest.approx(onset(source), abs=0.005)


def test_a_transport_stream_as_mp4_does_not_begin_with_nothing(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    make_video(tmp_path / "a.ts", codec="mpeg2video", begin=10, late=0.5)
    copy(tmp_path / "a.ts", tmp_path / "b.mp4")
    assert onset(tmp_path / "b.mp4") == pytest.approx(0.5, abs=0.01)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).time < 0.5
        assert container.duration / av.time_base < 4


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.ts", "mpeg2video")])
def test_a_gap_inside_the_sound_is_silence(tmp_path: Path, name: str, codec: str) -> None:
    pytest.importorskip("av")
    make_video(tmp_path / name, codec=codec, gap=(1.0, 0.75))
    wave, rate = audio.read(tmp_path / name)
    assert wave.shape[1] == pytest.approx(3.75 * rate, abs=2100)
    quiet = np.flatnonzero(np.abs(wave[0, 2000:-2000]) > 1e-3)
    assert np.diff(quiet).max() == pytest.approx(0.75 * rate, rel=0.05)


def test_a_broken_time_is_no_gap(tmp_path: Path) -> None:
    """An hour of silence nobody wants, nor any after one frame with a wrong time or where times drift."""
    pytest.importorskip("av")
    make_video(tmp_path / "a.mkv", gap=(1.0, 3600.0))
    wave, rate = audio.read(tmp_path / "a.mkv")
    assert wave.shape[1] == pytest.approx(3 * rate, abs=2100)


def gaps(times: list[float | None], stated: float = 100.0) -> list[float]:
    """What the clock says to frames of 0.1 s."""
    frames = [
        SimpleNamespace(samples=100, sample_rate=1000, pts=None if t is None else round(t * 1000), time_base=0.001)
        for t in times
    ]
    clock = Clock(stated)
    return [round(clock.gap(one, after), 3) for one, after in pairwise([*frames, None])]


def test_times_of_frames() -> None:
    assert gaps([5, 5.1, 5.2]) == [0, 0, 0]
    assert gaps([0, 0.1, 0.5, 0.6]) == [0, 0, 0.3, 0]
    assert gaps([0, 0.115, 0.199, 0.315, 0.4]) == [0] * 5  # jitter
    assert gaps([i * 0.115 for i in range(9)]) == [0] * 9  # drift
    assert gaps([0, 0.1, 7.0, 0.3, 0.4]) == [0] * 5  # wrong once
    assert gaps([0, 0.1, 5.0, 5.1, 0.4, 0.5, 0.6])[4:] == [0, 0, 0]
    assert gaps([0, None, None, 0.3, 0.7, None]) == [0, 0, 0, 0, 0.3, 0]
    assert gaps([1, 1.1, 0.2, 0.3, 1.4, 1.5]) == [0] * 6  # back and forth
    assert gaps([0, 0.1, 0.7, 0.8], stated=0.5) == [0] * 4  # longer than the file says to be
    assert gaps([0, 0.1, 3600, 3600.1], stated=4000) == [0] * 4


@pytest.mark.parametrize(
    ("name", "target", "codec"),
    [("a.mkv", "b.mkv", "aac"), ("a.mp4", "b.mp4", "aac"), ("a.ts", "b.ts", "mp2"), ("a.ts", "b.mp4", "aac")],
)
def test_further_audio_tracks_are_copied(tmp_path: Path, name: str, target: str, codec: str) -> None:
    av: Any = pytest.importorskip("av")
    make_video(tmp_path / name, codec="mpeg2video", second=codec)
    copy(tmp_path / name, tmp_path / target)
    with av.open(str(tmp_path / name)) as first, av.open(str(tmp_path / target)) as second:
        assert [s.type for s in second.streams] == ["video", "audio", "audio"]
        assert [s.metadata.get("language") for s in second.streams.audio] == ["eng", "deu"]
        sounds = [np.concatenate([f.to_ndarray() for f in c.decode(audio=1)], axis=1) for c in (first, second)]
    assert np.array_equal(*sounds)
    assert onset(tmp_path / target) == pytest.approx(0, abs=0.01)


def test_tracks_that_find_no_room_are_named(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    make_video(tmp_path / "a.mkv", second="pcm_s16le")
    words = f"{tmp_path / 'b.3gp'}: this kind of file cannot hold, so left out: audio (pcm_s16le)"
    copy(tmp_path / "a.mkv", tmp_path / "b.3gp", [words])
    with av.open(str(tmp_path / "b.3gp")) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]


@pytest.mark.parametrize(
    ("name", "target"),
    [("a.mp4", "b.mp4"), ("a.mkv", "b.mkv"), ("a.m4a", "b.m4a"), ("a.mp4", "b.m4a"), ("a.mp4", "b.flac")],
)
def test_tags_travel(tmp_path: Path, name: str, target: str) -> None:
    pytest.importorskip("av")
    make_video(tmp_path / "a.mkv" if name == "a.mkv" else tmp_path / "a.mp4", title="Episode 1", artist="Me")
    if name == "a.m4a":
        copy(tmp_path / "a.mp4", tmp_path / name)
    copy(tmp_path / name, tmp_path / target)
    tags = audio.probe(tmp_path / target).tags
    assert (tags["title"], tags["artist"]) == ("Episode 1", "Me")
    assert set(tags) <= {"title", "artist", "software"}


def test_tags_in_another_encoding_do_not_stop_the_reading(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.avi"
    make_video(path, title="Renée")
    path.write_bytes(path.read_bytes().replace("Renée".encode(), b"Ren\xe9e "))
    assert audio.probe(path).tags["title"].startswith("Ren\N{REPLACEMENT CHARACTER}e")
    copy(path, tmp_path / "b.avi")
