"""Pairing of files by relative name."""

from __future__ import annotations

from pathlib import Path

import pytest

from semamba.errors import SemambaError
from semamba.metrics.pairs import find_pairs


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_names_match_in_subfolders_and_suffixes_may_differ(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", "a.wav", "b/a.flac", "c.1.wav", "notes.txt", ".hidden/a.wav", "._a.wav")
    other = make(tmp_path / "other", "a.flac", "b/a.flac", "c.1.mp3")
    pairs, unpaired = find_pairs(clean, other)
    assert [name for name, _, _ in pairs] == ["a.wav", "b/a.flac", "c.1.wav"]
    assert [match.name for _, _, match in pairs] == ["a.flac", "a.flac", "c.1.mp3"]
    assert unpaired == {}


def test_leftovers_are_named(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", "a.wav", "only_clean.wav", "d.wav", "d.flac")
    other = make(tmp_path / "other", "a.wav", "a.mp3", "only_other.wav", "d.mp3")
    pairs, unpaired = find_pairs(clean, other)
    assert [name for name, _, _ in pairs] == ["a.wav"]
    assert set(unpaired) == {"only_clean.wav", "only_other.wav", "a.mp3", "d.wav", "d.flac", "d.mp3"}
    assert "no file of this name" in unpaired["only_clean.wav"] and "several" in unpaired["d.wav"]


def test_two_files_are_a_pair(tmp_path: Path) -> None:
    make(tmp_path, "x.wav", "y.wav")
    assert find_pairs(tmp_path / "x.wav", tmp_path / "y.wav")[0] == [("x.wav", tmp_path / "x.wav", tmp_path / "y.wav")]


def test_nothing_to_pair_is_an_error(tmp_path: Path) -> None:
    clean, other = make(tmp_path / "clean", "a.wav"), make(tmp_path / "other", "b.wav")
    with pytest.raises(SemambaError, match="share a relative name"):
        find_pairs(clean, other)
    with pytest.raises(SemambaError, match="two folders or two files"):
        find_pairs(clean, other / "b.wav")
    with pytest.raises(SemambaError, match="no such"):
        find_pairs(clean, tmp_path / "missing")
