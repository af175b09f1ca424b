"""Files through the engine: what is kept, what is refused, what is left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from semamba import audio
from semamba.errors import SemambaError
from semamba.inference.engine import Options
from semamba.inference.enhance import Enhancer
from semamba.inference.files import CancelledError, enhance_file


def write(path: Path, channels: int = 1, frames: int = 16_000, rate: int = 16_000, **kind: str) -> Path:
    wave = np.random.default_rng(0).standard_normal((frames, channels)) * 0.1
    soundfile.write(path, wave.astype(np.float32), rate, **kind)
    return path


@pytest.mark.parametrize(
    ("name", "rate", "channels", "kind"),
    [
        ("a.wav", 8000, 1, {}),
        ("a.wav", 48_000, 2, {"subtype": "PCM_24"}),
        ("a.wav", 192_000, 1, {"subtype": "FLOAT"}),
        ("a.wav", 48_000, 24, {"format": "WAVEX"}),
        ("a.flac", 44_100, 2, {}),
        ("a.ogg", 44_100, 2, {}),
        ("a.opus", 48_000, 1, {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", 44_100, 2, {}),
        ("a.aiff", 22_050, 1, {}),
    ],
)
def test_everything_about_the_file_is_kept(
    tiny: Enhancer, tmp_path: Path, name: str, rate: int, channels: int, kind: dict[str, str]
) -> None:
    source = write(tmp_path / name, channels, rate // 10 + 3, rate, **kind)
    content, before = source.read_bytes(), soundfile.info(source)
    result = enhance_file(tiny, source)
    after = soundfile.info(result.target)
    assert result.target.name == name.replace("a.", "a.enhanced.")
    for what in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(after, what) == getattr(before, what)
    assert source.read_bytes() == content and result.warnings == ()
    assert (result.frames, result.sample_rate, result.channels) == (before.frames, rate, channels)


@pytest.mark.parametrize("options", [Options(), Options(pcs=True, mix=0.8), Options(attenuation_limit=12.0)])
def test_file_and_array_are_equal(tiny: Enhancer, tmp_path: Path, options: Options) -> None:
    source = write(tmp_path / "a.wav", 2, 150_000, 44_100, subtype="FLOAT")
    made, _ = audio.read(enhance_file(tiny, source, tmp_path / "b.wav", options).target)
    wave, rate = audio.read(source)
    same = tiny(wave, rate, pcs=options.pcs, mix=options.mix, attenuation_limit=options.attenuation_limit)
    assert np.allclose(made, same, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 100, 1600])
@pytest.mark.parametrize("rate", [8000, 16_000, 192_000])
def test_short_files(identity: Enhancer, tmp_path: Path, frames: int, rate: int) -> None:
    source = write(tmp_path / "a.wav", 1, frames, rate)
    assert soundfile.info(enhance_file(identity, source).target).frames == frames


def test_a_file_without_samples_stays_one(tiny: Enhancer, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", 2, 0)
    assert soundfile.info(enhance_file(tiny, source).target).frames == 0


def test_nan_in_a_file_is_reported_with_its_name(tiny: Enhancer, tmp_path: Path) -> None:
    wave = np.full(5000, 0.1, np.float32)
    wave[100], wave[200] = np.nan, np.inf
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    result = enhance_file(tiny, tmp_path / "a.wav")
    assert str(tmp_path / "a.wav") in result.warnings[0] and "2 samples" in result.warnings[0]
    assert np.isfinite(audio.read(result.target)[0]).all()


def test_refuses_to_overwrite(tiny: Enhancer, tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.wav"), write(tmp_path / "b.wav", frames=5)
    content = source.read_bytes(), target.read_bytes()
    with pytest.raises(SemambaError, match="exists already"):
        enhance_file(tiny, source, target)
    with pytest.raises(SemambaError, match="would replace the input"):
        enhance_file(tiny, source, source)
    assert (source.read_bytes(), target.read_bytes()) == content
    enhance_file(tiny, source, target, overwrite=True)
    assert soundfile.info(target).frames == 16_000
    enhance_file(tiny, source, source, overwrite=True)
    assert source.read_bytes() == target.read_bytes()


def test_stopping_leaves_nothing(tiny: Enhancer, tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", frames=100_000)

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enhance_file(tiny, source, progress=stop)
    with pytest.raises(CancelledError):
        enhance_file(tiny, source, cancelled=lambda: True)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_progress_ends_at_the_length(tiny: Enhancer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    enhance_file(tiny, write(tmp_path / "a.wav", frames=100_000), progress=lambda *at: seen.append(at))
    assert seen[-1] == (100_000, 100_000) and len(seen) > 2
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_lossy_file_without_sound_is_an_error(tiny: Enhancer, tmp_path: Path) -> None:
    source = write(tmp_path / "a.ogg", frames=16_000)
    source.write_bytes(source.read_bytes()[:4500])
    with pytest.raises(SemambaError, match=r"a.ogg: .*cut off"):
        enhance_file(tiny, source)
    assert os.listdir(tmp_path) == ["a.ogg"]


def test_a_damaged_file_leaves_nothing(tiny: Enhancer, tmp_path: Path) -> None:
    source = write(tmp_path / "a.flac", frames=160_000)
    source.write_bytes(source.read_bytes()[:100_000])
    with pytest.raises(SemambaError, match="damaged or cut off") as caught:
        enhance_file(tiny, source)
    assert str(source) in str(caught.value) and os.listdir(tmp_path) == ["a.flac"]


def test_a_video_keeps_its_picture(tiny: Enhancer, tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    source = tmp_path / "talk.mp4"
    with av.open(str(source), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        for index in range(10):
            image = np.full((48, 64, 3), index * 20, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode(None))
        wave = (np.random.default_rng(0).standard_normal((1, 48_000)) * 0.1).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    result = enhance_file(tiny, source)
    assert result.target.name == "talk.enhanced.mp4" and result.seconds == pytest.approx(1, abs=0.05)
    with av.open(str(result.target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    with audio.open_reader(result.target) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == pytest.approx(result.frames, abs=2048)


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A folder and a file name inside it that are not UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        folder.mkdir()
        (folder / os.fsdecode(b"caf\xe9.wav")).touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only UTF-8")
    return folder / os.fsdecode(b"caf\xe9.wav")


def test_names_that_are_not_utf8(tiny: Enhancer, latin: Path) -> None:
    latin.write_bytes(write(latin.parents[1] / "a.wav").read_bytes())
    result = enhance_file(tiny, latin)
    assert os.fsencode(result.target.name) == b"caf\xe9.enhanced.wav"
    assert audio.probe(result.target).frames == 16_000
    assert audio.remove_leftovers([latin]) == 0


def test_videos_whose_names_are_not_utf8(tiny: Enhancer, latin: Path) -> None:
    pytest.importorskip("av")
    source = latin.with_suffix(".m4a")
    info = audio.AudioInfo(16_000, 1, None, audio.MEDIA, "aac", suffix=".m4a")
    with audio.open_writer(source, info) as writer:
        writer.write(np.zeros((1, 16_000), np.float32))
    result = enhance_file(tiny, source)
    assert result.target.exists() and result.frames >= 16_000
