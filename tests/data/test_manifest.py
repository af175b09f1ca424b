"""Manifests: rows, selections, pairs, and errors that name the file and the line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from semamba.data.manifest import Entry, Manifest
from semamba.errors import SemambaError


def test_read_makes_paths_relative_to_the_manifest(corpus: Path) -> None:
    manifest = Manifest.read(corpus)
    assert all(entry.path.is_file() for entry in manifest)
    assert manifest.entries[0].path == corpus.parent / "train/speech/v0/0.flac"


def test_select_by_split_folder_and_kind(corpus: Path) -> None:
    manifest = Manifest.read(corpus)
    assert len(manifest.select("train", "speech")) == 6
    assert {entry.kind for entry in manifest.select("valid/paired")} == {"paired_clean", "paired_noisy"}
    assert len(manifest.select("nothing")) == 0
    with pytest.raises(SemambaError, match="speach"):
        manifest.select(kind="speach")


def test_a_split_is_what_the_column_says_wherever_the_file_lies(manifest_of: Callable[[str], Path]) -> None:
    text = "path,split,kind\ntrain/a.wav,train,speech\ntrain/b.wav,valid,speech\nvalid/c.wav,test,speech\n"
    manifest = Manifest.read(manifest_of(text + "mine/d.wav,train_more,speech\n"))
    names = {prefix: [entry.name for entry in manifest.select(prefix)] for prefix in ("train", "valid", "test", "t")}
    assert names == {"train": ["train/a.wav"], "valid": ["train/b.wav"], "test": ["valid/c.wav"], "t": []}
    assert [entry.name for entry in manifest.select("mine")] == ["mine/d.wav"]  # no split of that name: a folder
    assert len(manifest.select("")) == 4


def test_pairs_share_a_name(corpus: Path) -> None:
    pairs = Manifest.read(corpus).pairs("valid")
    assert [clean.path.stem for clean, _ in pairs] == ["p0", "p1", "p2"]
    assert all(clean.path.stem == noisy.path.stem for clean, noisy in pairs)


def test_a_pair_without_partner_is_named(manifest_of: Callable[[str], Path]) -> None:
    path = manifest_of("path,split,kind\nclean/a.wav,valid,paired_clean\n")
    with pytest.raises(SemambaError, match=r"a\.wav.*no partner"):
        Manifest.read(path).pairs()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\na.wav,train\n", "column 'kind' is missing"),
        ("path,split,kind\na.wav,train,speach\n", "line 2: unknown kind 'speach'"),
        ("path,split,kind\na.wav,train,speech\n,train,noise\n", "line 3: the path is empty"),
        ("path,split,kind,seconds\na.wav,train,speech,long\n", "line 2: seconds is 'long'"),
        ("path,split,kind\n", "no rows"),
        ("", "is missing"),
    ],
)
def test_errors_name_file_and_line(manifest_of: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(SemambaError, match=message) as caught:
        Manifest.read(manifest_of(text))
    assert "manifest.csv" in str(caught.value)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="no such manifest"):
        Manifest.read(tmp_path / "none.csv")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(SemambaError, match="column 'path' is missing"):
        Manifest.read(path)


def test_short_rows_are_refused_by_line(manifest_of: Callable[[str], Path]) -> None:
    with pytest.raises(SemambaError, match="line 2"):
        Manifest.read(manifest_of("path,split,kind\na.wav\n"))


def test_from_folders(corpus: Path) -> None:
    root = corpus.parent / "train"
    manifest = Manifest.from_folders(clean=root / "speech", noise=root / "noise", rir=root / "rir")
    assert {entry.speaker for entry in manifest.select(kind="speech")} == {"v0", "v1", "v2"}
    assert len(manifest.select("train", "noise")) == 3
    with pytest.raises(SemambaError, match="no such folder"):
        Manifest.from_folders(clean=root / "absent")
    with pytest.raises(SemambaError, match="no folder"):
        Manifest.from_folders()


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    entry = Entry(tmp_path / name, "train", "speech", "s", name=name)
    Manifest((entry,)).write(tmp_path / "manifest.csv")
    assert b"caf\xe9.wav" in (tmp_path / "manifest.csv").read_bytes()
    assert Manifest.read(tmp_path / "manifest.csv").entries[0].path == tmp_path / name


def test_every_column_comes_back(tmp_path: Path) -> None:
    entry = Entry(tmp_path / "a.wav", "train", "speech", "anna", 1.5, "hello you", "corpus", "CC0-1.0", "a.wav")
    Manifest((entry,)).write(tmp_path / "m.csv")
    assert Manifest.read(tmp_path / "m.csv").entries == (entry,)
