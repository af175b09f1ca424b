"""Transcripts from the layouts of corpora."""

from __future__ import annotations

from pathlib import Path

import pytest

from semamba.errors import SemambaError
from semamba.metrics.transcripts import read_transcripts


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_librispeech(tmp_path: Path) -> None:
    write(tmp_path / "12/34/12-34.trans.txt", "12-34-0000 HELLO WORLD\n12-34-0001 AGAIN\n")
    write(tmp_path / "12/35/12-35.trans.txt", "12-35-0000 MORE\n")
    expected = {"12-34-0000": "HELLO WORLD", "12-34-0001": "AGAIN", "12-35-0000": "MORE"}
    assert read_transcripts(tmp_path) == expected


def test_vctk(tmp_path: Path) -> None:
    write(tmp_path / "txt/p226/p226_001.txt", "Please call\n Stella.\n")
    assert read_transcripts(tmp_path) == {"p226_001": "Please call Stella."}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'path,split,text\nclean/x.1.flac,valid,"one, two"\ny.wav,valid,\n'),
        ("a.tsv", "file\tsentence\nclean/x.1.flac\tone, two\n"),
        ("a.jsonl", '{"audio_filepath": "clean/x.1.flac", "text": "one, two"}\n\n'),
    ],
)
def test_tables(tmp_path: Path, name: str, text: str) -> None:
    assert read_transcripts(write(tmp_path / name, text)) == {"x.1": "one, two"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "name,words\nx,y\n", "no column of recordings"),
        ("a.tsv", "path\twords\nx\ty\n", "no column of texts"),
        ("a.jsonl", '{"path": "x"}\n', "line 1: lacks one of"),
        ("a.jsonl", '{"path": "x", "text": "y"}\n{', "line 2: not JSON"),
        ("a.trans.txt", "", "no transcripts here"),
        ("a.doc", "x", "transcripts are read from"),
        ("a.csv", "path,text\na/x.wav,one\nb/x.wav,two\n", "two different transcripts"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SemambaError, match=message):
        read_transcripts(write(tmp_path / name, text))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="no such file"):
        read_transcripts(tmp_path / "none")
