"""Files of every sample format are read alike."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba.data.reading import read_int16
from semamba.errors import SemambaError


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_subtype_gives_the_same_samples(tmp_path: Path, subtype: str, channels: int) -> None:
    wave = 0.5 * np.sin(np.arange(1600) / 7)
    soundfile.write(tmp_path / "a.wav", np.stack([wave] * channels, 1), 16000, subtype=subtype)
    read = read_int16(tmp_path / "a.wav", 16000)
    assert read.dtype == np.int16 and read.shape == (1600,)
    assert np.abs(read - 32768 * wave).max() <= 1


def test_samples_beyond_full_scale_are_clipped_and_those_that_are_no_numbers_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.array([1.5, -1.5, 0.0]), 16000, subtype="FLOAT")
    assert read_int16(tmp_path / "loud.wav", 16000).tolist() == [32767, -32768, 0]
    soundfile.write(tmp_path / "broken.wav", np.array([0.1, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(SemambaError, match=r"broken\.wav: holds samples that are not numbers"):
        read_int16(tmp_path / "broken.wav", 16000)


@pytest.mark.parametrize(("name", "kind"), [("a.ogg", {}), ("a.opus", {"format": "OGG", "subtype": "OPUS"})])
def test_loud_lossy_files_do_not_wrap_around(tmp_path: Path, name: str, kind: dict[str, str]) -> None:
    wave = np.sign(np.sin(np.arange(16000) / 20))  # coded, its edges exceed full scale
    soundfile.write(tmp_path / name, wave, 16000, **kind)
    decoded = soundfile.read(tmp_path / name)[0]
    assert np.abs(decoded).max() > 1
    expected = np.clip(np.rint(decoded * 32768), -32768, 32767)
    assert np.abs(read_int16(tmp_path / name, 16000) - expected).max() <= 1


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(sound := _wav())
    assert read_int16(path, 16000).tolist() == read_int16(Path("a.wav"), 16000, content=sound).tolist()


def _wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.array([0.25, -0.5]), 16000, format="WAV")
    return file.getvalue()
