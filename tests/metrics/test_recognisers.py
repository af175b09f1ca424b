"""Recognisers: names, missing weights, and the real library's calls through a stand-in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError
from semamba.metrics import recognisers, wer
from semamba.metrics.recognisers import open_recogniser


@pytest.mark.parametrize("name", ["whisper", "", "pocketsphinx:big"])
def test_unknown(name: str) -> None:
    with pytest.raises(SemambaError, match="there are faster-whisper"):
        open_recogniser(name)


def test_missing_weights_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(recognisers.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(SemambaError, match=rf"no weights 'large-v3' here: put model.bin .*{tmp_path / 'large-v3'}"):
        open_recogniser("faster-whisper:large-v3")


def test_faster_whisper_is_given_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in recognisers.WHISPER_FILES:
        (tmp_path / name).touch()
    calls: list[object] = []

    class WhisperModel:
        def __init__(self, folder: str, **options: object) -> None:
            calls.append((folder, options["local_files_only"]))

        def transcribe(self, wave: np.ndarray, **options: object) -> tuple[list[SimpleNamespace], None]:
            calls.append((wave.dtype, options["language"], options["condition_on_previous_text"]))
            return [SimpleNamespace(text=" One"), SimpleNamespace(text=" two. ")], None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=WhisperModel))
    heard = open_recogniser(f"faster-whisper:{tmp_path}").transcribe(np.zeros(100, np.float32))
    assert heard == "One two."
    assert calls == [(str(tmp_path), True), (np.float32, "en", False)]


def test_one_whisper_many_sphinxes() -> None:
    assert not recognisers.many_at_once("faster-whisper:base") and recognisers.many_at_once("pocketsphinx")


def test_the_offline_recogniser_hears_words(shared_dir: Path) -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    wave, rate = audio.read(shared_dir / "data/valid/speech/ls1284/1284-1180-0004.flac")
    said = "WHEN THEY WERE OUTSIDE UNC SIMPLY LATCHED THE DOOR AND STARTED UP THE PATH"
    recogniser = open_recogniser("pocketsphinx")
    first = recogniser.transcribe(wave[0])
    assert rate == recognisers.SAMPLE_RATE and wer.compare(said, first).words.rate < 0.5
    recogniser.transcribe(0.1 * wave[0, ::-1])
    assert recogniser.transcribe(wave[0]) == first  # nothing is carried from file to file
