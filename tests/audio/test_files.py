"""Reading and writing: formats, lengths, levels, damaged and impossible files."""

from __future__ import annotations

import errno
import os
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba import audio
from semamba.errors import SemambaError

KINDS = [
    ("x.wav", "WAV", "PCM_16"),
    ("x.wav", "WAV", "PCM_24"),
    ("x.wav", "WAV", "FLOAT"),
    ("x.wav", "WAV", "ULAW"),
    ("x.wav", "WAVEX", "PCM_16"),
    ("x.wav", "RF64", "PCM_16"),
    ("x.flac", "FLAC", "PCM_16"),
    ("x.flac", "FLAC", "PCM_24"),
    ("x.aiff", "AIFF", "PCM_16"),
    ("x.ogg", "OGG", "VORBIS"),
    ("x.opus", "OGG", "OPUS"),
    ("x.mp3", "MP3", "MPEG_LAYER_III"),
]


def noise(channels: int, frames: int, scale: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, frames)) * scale).astype(np.float32)


@pytest.mark.parametrize(("name", "container", "subtype"), KINDS)
def test_copy_keeps_container_rate_channels_and_length(tmp_path: Path, name: str, container: str, subtype: str) -> None:
    source, target = tmp_path / name, tmp_path / f"copy-{name}"
    soundfile.write(source, noise(2, 48_123).T, 48_000, format=container, subtype=subtype)
    with audio.open_reader(source) as reader, audio.open_writer(target, reader.info) as writer:
        assert reader.info.frames == 48_123
        for block in reader.blocks(10_000):
            assert block.shape[1] <= 10_000
            writer.write(block)
    before, after = soundfile.info(source), soundfile.info(target)
    assert (after.format, after.subtype) == (container, subtype)
    assert (after.samplerate, after.channels, after.frames) == (48_000, 2, 48_123)
    assert before.frames == 48_123
    assert list(tmp_path.glob(".semamba*")) == []


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_copy_is_exact(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1, 5000).T, 16_000, subtype=subtype)
    with audio.open_reader(tmp_path / "a.wav") as reader, audio.open_writer(tmp_path / "b.wav", reader.info) as writer:
        for block in reader.blocks():
            writer.write(block)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_clipping_not_wrapping(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", np.array([[1.5, -1.5, 1.0]], np.float32), 16_000)
    wave, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert wave.tolist() == [32767, -32768, 32767]


@pytest.mark.parametrize(
    ("name", "container", "subtype", "bits"),
    [
        ("x.wav", "WAV", "PCM_U8", 8),
        ("x.wav", "WAV", "PCM_16", 16),
        ("x.wav", "WAV", "PCM_24", 24),
        ("x.aiff", "AIFF", "PCM_S8", 8),
        ("x.aiff", "AIFF", "PCM_16", 16),
        ("x.w64", "W64", "PCM_24", 24),
        ("x.au", "AU", "PCM_16", 16),
        ("x.caf", "CAF", "ALAC_16", 16),
        ("x.caf", "CAF", "ALAC_20", 20),
        ("x.caf", "CAF", "ALAC_24", 24),
        ("x.flac", "FLAC", "PCM_16", 16),
    ],
)
def test_samples_are_rounded_to_the_nearest(tmp_path: Path, name: str, container: str, subtype: str, bits: int) -> None:
    step = 2.0 ** (1 - bits)
    wave = np.concatenate([np.array([[0.6, -0.6, 0.4, -0.4, 1e-3, -1e-3]], np.float32) * step, noise(1, 5000)], axis=1)
    info = audio.AudioInfo(16_000, 1, None, container, subtype, suffix=Path(name).suffix)
    with audio.open_writer(tmp_path / name, info) as writer:
        writer.write(wave)
    after, _ = soundfile.read(tmp_path / name, dtype="float64")
    error = (after - wave[0]) / step
    assert (after[:6] / step).tolist() == [1, -1, 0, 0, 0, 0]
    assert np.abs(error).max() <= 0.5 and abs(error.mean()) < 0.03


def test_tags_travel(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 16_000, 1) as file:
        file.title, file.artist = "Talk", "Somebody"
        file.write(noise(1, 100).T)
    with (
        audio.open_reader(tmp_path / "a.flac") as reader,
        audio.open_writer(tmp_path / "b.flac", reader.info) as writer,
    ):
        writer.write(next(reader.blocks()))
    with soundfile.SoundFile(tmp_path / "b.flac") as file:
        assert (file.title, file.artist) == ("Talk", "Somebody")


def test_another_suffix_keeps_the_sample_format_where_it_can() -> None:
    info = audio.AudioInfo(48_000, 2, 100, "WAV", "PCM_24", suffix=".wav")
    assert audio.output_format(info, "x.flac").subtype == "PCM_24"
    assert audio.output_format(info, "x.ogg").subtype == "VORBIS"
    assert audio.output_format(info, "x.opus").subtype == "OPUS"
    wide = audio.AudioInfo(48_000, 2, 100, "WAV", "FLOAT", suffix=".wav")
    assert audio.output_format(wide, "x.flac").subtype == "PCM_24"
    with pytest.raises(SemambaError, match=r"cannot write files ending in '.xyz'"):
        audio.output_format(info, "x.xyz")


def test_mp3_becomes_pcm_in_a_wav_file() -> None:
    mp3 = audio.AudioInfo(8000, 1, 100, "MP3", "MPEG_LAYER_III", suffix=".mp3")
    assert audio.output_format(mp3, "y.wav").subtype == "PCM_16"
    assert audio.output_format(mp3, "y.mp3").subtype == "MPEG_LAYER_III"


def test_wav_that_would_pass_4_gib_becomes_rf64() -> None:
    info = audio.AudioInfo(48_000, 2, 10 * 3600 * 48_000, "WAV", "PCM_16", suffix=".wav")
    assert audio.output_format(info, "x.wav").format == "RF64"


def test_read_and_write_whole(tmp_path: Path) -> None:
    wave = noise(3, 4410)
    audio.write(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    again, rate = audio.read(tmp_path / "a.wav")
    assert rate == 44_100 and np.array_equal(again, wave)
    low, rate = audio.read(tmp_path / "a.wav", sample_rate=16_000)
    assert rate == 16_000 and low.shape == (3, 1600)
    assert audio.probe(tmp_path / "a.wav").seconds == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"this is no sound, it is text " * 20, "not a readable audio file"), (b"RIFF", "not a readable")],
)
def test_what_is_no_audio_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(SemambaError, match=message) as caught:
        audio.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="no such file"):
        audio.read(tmp_path / "none.wav")
    with pytest.raises(SemambaError, match="folder"):
        audio.read(tmp_path)
    with pytest.raises(SemambaError, match="no such file"):
        audio.read(tmp_path / "none.mp4")


def test_truncated_wav_gives_what_is_there_and_warns(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, noise(1, 16_000).T, 16_000)
    path.write_bytes(path.read_bytes()[:10_044])
    with audio.open_reader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 5000
        assert "shorter than its header says" in reader.warnings[0]


def test_stream_headers_without_a_length_do_not_warn(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, noise(1, 1000).T, 16_000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    with audio.open_reader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 1000
        assert reader.warnings == []


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac"])
def test_blocks_equal_the_whole(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, noise(1, 50_000).T, 44_100)
    with audio.open_reader(tmp_path / name) as reader:
        wave = np.concatenate(list(reader.blocks(3001)), axis=1)
    whole, _ = soundfile.read(tmp_path / name, dtype="float32", always_2d=True)
    assert np.array_equal(wave, whole.T)


def test_flac_of_unstated_length(tmp_path: Path) -> None:
    path = tmp_path / "piped.flac"
    soundfile.write(path, noise(1, 5000).T, 16_000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of the number of samples in STREAMINFO
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with audio.open_reader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 5000
        assert reader.warnings == []


@pytest.mark.parametrize("name", ["cut.flac", "cut.mp3", "cut.ogg"])
def test_truncated_compressed_files_end_in_a_result_or_a_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    soundfile.write(path, noise(1, 160_000).T, 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        with audio.open_reader(path) as reader:
            frames = sum(block.shape[1] for block in reader.blocks())
            warnings = reader.warnings
    except SemambaError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        # An OGG file states no length: half a file is a file.
        assert 60_000 < frames < 100_000 and (name == "cut.ogg" or "cut off?" in warnings[0])


def test_a_failure_inside_leaves_nothing_and_keeps_the_old_target(tmp_path: Path) -> None:
    target = tmp_path / "x.wav"
    target.write_bytes(b"old")
    info = audio.AudioInfo(16_000, 1, None, "WAV", "PCM_16", suffix=".wav")
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error), audio.open_writer(target, info) as writer:
            writer.write(noise(1, 1000))
            raise error
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.wav"]


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
def test_a_file_system_that_takes_no_more(tmp_path: Path, name: str) -> None:
    """A limit on file size meets libsndfile just as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    info = audio.AudioInfo(48_000, 2, None, "", "PCM_16")
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with (
            pytest.raises(SemambaError, match="cannot write") as caught,
            audio.open_writer(tmp_path / name, info) as writer,
        ):
            for _ in range(5):
                writer.write(noise(2, 20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_full_and_read_only_disks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = audio.AudioInfo(16_000, 1, None, "WAV", "PCM_16", suffix=".wav")
    for number, text in (
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
    ):

        def refuse(*_: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            with pytest.raises(SemambaError, match=text), audio.open_writer(tmp_path / "x.wav", info):
                pass
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    info = audio.AudioInfo(16_000, 1, None, "WAV", "PCM_16", suffix=".wav")
    with pytest.raises(SemambaError, match="permission denied"), audio.open_writer(tmp_path / "x.wav", info):
        pass


def test_a_container_that_cannot_hold_the_sound(tmp_path: Path) -> None:
    info = audio.AudioInfo(48_000, 24, None, "WAV", "PCM_16", suffix=".wav")
    with (
        pytest.raises(SemambaError, match="24 channels at 48000 Hz as MP3"),
        audio.open_writer(tmp_path / "x.mp3", info),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_leftovers_of_killed_writers_are_told_apart(tmp_path: Path) -> None:
    """Only the temporary files of the targets named go; a writer of another file in their folder is not disturbed."""
    info = audio.AudioInfo(16000, 1, 8, "WAV", "PCM_16", suffix=".wav")
    ours, other = audio.open_writer(tmp_path / "ours.wav", info), audio.open_writer(tmp_path / "other.wav", info)
    ours.__enter__()  # and never left, as by a kill
    with other:
        assert audio.remove_leftovers([tmp_path / "ours.wav", tmp_path / "none/x.wav"]) == 1
        other.write(np.zeros((1, 8), np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["other.wav"]


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.mp3", "a.ogg", "a.opus"])
def test_no_samples_make_a_file_that_can_be_read_or_none(tmp_path: Path, name: str) -> None:
    try:
        audio.write(tmp_path / name, np.zeros((1, 0), np.float32), 48_000)
    except SemambaError as error:
        assert "needs samples" in str(error) and not list(tmp_path.iterdir())
    else:
        assert audio.read(tmp_path / name)[0].shape == (1, 0)
    assert name not in ("a.wav", "a.aiff") or (tmp_path / name).is_file()
