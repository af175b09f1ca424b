"""Video and AAC: without the optional library one clear line, with it the sound and the picture."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "talk.mp4"
    path.write_bytes(b"something")
    with pytest.raises(SemambaError, match=r"pip install 'semamba\[video\]'"):
        audio.open_reader(path)


def make_video(path: Path, seconds: int = 3, rate: int = 44_100) -> np.ndarray:
    """A video of one colour a frame with a stereo tone beside it."""
    av: Any = pytest.importorskip("av")
    time = np.arange(seconds * rate) / rate
    tone = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 880 * time)]).astype(np.float32) * 0.3
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=rate, layout="stereo")
        for index in range(seconds * 10):
            image = np.full((48, 64, 3), index * 5, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode(None))
        for start in range(0, tone.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 1024]), format="fltp")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
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
