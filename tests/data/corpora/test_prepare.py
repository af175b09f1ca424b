"""Preparing: a checked manifest, nothing done twice, bad files named and left out, several processes the same."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba.data.corpora import CORPORA, prepare, voicebank
from semamba.data.manifest import Manifest
from semamba.errors import SemambaError
from tests.data.corpora.conftest import Write, noisy, voice
from tests.data.corpora.test_scan import voicebank_tree

FOLDER = CORPORA["folder"]


def pairs_tree(write: Write, count: int = 4) -> None:
    for number in range(count):
        clean = voice(number, rate=48000)
        write(f"clean/{number}.wav", clean, 48000)
        write(f"noisy/{number}.wav", noisy(clean), 48000)


def test_manifest_has_all_columns_and_readable_pairs(
    write: Write, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voicebank_tree(write)
    small = {"train": ("trainset_28spk_wav", 3, "x"), "test": ("testset_wav", 1, "y")}
    monkeypatch.setattr(voicebank, "SETS", small)
    report = prepare.prepare(voicebank.CORPUS, source, tmp_path / "out")
    with report.manifest.open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "split", "kind", "source", "licence", "seconds", "speaker", "text"]
    assert {row["source"] for row in rows} == {"VoiceBank-DEMAND"} and {row["seconds"] for row in rows} == {"0.600"}
    manifest = Manifest.read(report.manifest)
    assert [len(manifest.pairs(split)) for split in ("train", "valid", "test")] == [1, 2, 1]
    assert all(soundfile.info(entry.path).samplerate == 16000 for entry in manifest)
    assert report.speakers["valid"] == {"p286", "p287"} and not report.problems and not report.layout.notes


def test_half_an_archive_is_refused_unless_allowed(write: Write, source: Path, tmp_path: Path) -> None:
    voicebank_tree(write)
    with pytest.raises(SemambaError, match=r"not complete: .* holds 3 of 11,572 files.*--allow-partial") as caught:
        prepare.prepare(voicebank.CORPUS, source, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    report = prepare.prepare(voicebank.CORPUS, source, tmp_path / "out", allow_partial=True)
    assert sum(report.files.values()) == 4


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_another_folder_is_refused_in_one_line(name: str, source: Path, tmp_path: Path) -> None:
    for folder in (source, tmp_path / "absent"):
        with pytest.raises(SemambaError, match=r"this is not|no such folder") as caught:
            prepare.prepare(CORPORA[name], folder, tmp_path / "out", allow_partial=True)
        assert "\n" not in str(caught.value)


def test_a_second_call_keeps_what_is_done(write: Write, source: Path, tmp_path: Path) -> None:
    pairs_tree(write)
    out = tmp_path / "out"
    first = prepare.prepare(FOLDER, source, out)
    content = first.manifest.read_bytes()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    (out / "train").rglob("*.flac")
    again = prepare.prepare(FOLDER, source, out)
    assert (first.kept, again.kept) == (0, 4) and again.manifest.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")} == times
    gone = next(iter(times))
    gone.unlink()
    write("clean/3.wav", voice(3, 0.9, 48000), 48000)
    write("noisy/3.wav", noisy(voice(3, 0.9, 48000)), 48000)
    third = prepare.prepare(FOLDER, source, out)
    assert third.kept == 4 - len({gone.stem, "3"}) and gone.exists()
    (out / "prepared.jsonl").write_text((out / "prepared.jsonl").read_text()[:-30])
    assert prepare.prepare(FOLDER, source, out).kept == 3  # a line cut short by a kill is one unit to do again


def test_bad_files_are_named_left_out_and_tried_again(write: Write, source: Path, tmp_path: Path) -> None:
    pairs_tree(write)
    (source / "noisy/2.wav").write_bytes(b"not audio")
    out = tmp_path / "out"
    report = prepare.prepare(FOLDER, source, out)
    assert len(report.problems) == 1 and "noisy/2.wav" in report.problems[0]
    assert "2.wav" in (out / "problems.csv").read_text() and len(Manifest.read(report.manifest)) == 6
    write("noisy/2.wav", noisy(voice(2, rate=48000)), 48000)
    assert not prepare.prepare(FOLDER, source, out).problems and not (out / "problems.csv").exists()


def test_nothing_usable_is_an_error_and_writes_no_manifest(write: Write, source: Path, tmp_path: Path) -> None:
    for side in ("clean", "noisy"):
        write(f"{side}/a.wav", np.zeros(16000))
    with pytest.raises(SemambaError, match=r"none of 1 files is usable, the first: .*a\.wav: silent"):
        prepare.prepare(FOLDER, source, tmp_path / "out")
    assert not (tmp_path / "out/manifest.csv").exists()


def test_processes_give_the_same_as_one(write: Write, source: Path, tmp_path: Path) -> None:
    pairs_tree(write, 12)
    ticks: list[tuple[int, int]] = []
    prepare.prepare(FOLDER, source, tmp_path / "one")
    prepare.prepare(FOLDER, source, tmp_path / "two", jobs=2, progress=lambda *state: ticks.append(state))
    one, two = (tmp_path / name / "manifest.csv" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes() and ticks[0] == (0, 12) and ticks[-1] == (12, 12)
    for path in (tmp_path / "one").rglob("*.flac"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that may not be written")
def test_an_output_that_cannot_be_written_is_one_line(write: Write, source: Path, tmp_path: Path) -> None:
    pairs_tree(write)
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(SemambaError, match="cannot be used as output folder"):
        prepare.prepare(FOLDER, source, tmp_path / "locked/out")


def test_two_files_of_one_name_are_reported(write: Write, source: Path, tmp_path: Path) -> None:
    write("noise/a.wav", voice(1))
    write("noise/a.flac", voice(2))
    with pytest.raises(SemambaError, match="1 names occur twice, for example a"):
        prepare.prepare(FOLDER, source, tmp_path / "out")
