"""Which file goes where."""

from __future__ import annotations

from pathlib import Path

import pytest

from semamba.errors import SemambaError
from semamba.inference.plan import plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "in/a.wav",
        "in/b.FLAC",
        "in/notes.txt",
        "in/.hidden.wav",
        "in/sub/a.wav",
        "in/a.enhanced.wav",
        "[x].wav",
    ):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def pairs(*inputs: str, output: str | None = None, recursive: bool = False) -> list[tuple[str, str]]:
    jobs = plan(inputs, output, recursive)
    assert not any(job.error for job in jobs)
    return [(job.source.as_posix(), job.target.as_posix()) for job in jobs]


@pytest.mark.usefixtures("folder")
def test_one_file() -> None:
    assert pairs("in/a.wav") == [("in/a.wav", "in/a.enhanced.wav")]
    assert pairs("in/a.wav", output="x.flac") == [("in/a.wav", "x.flac")]
    assert pairs("in/a.wav", output="out/") == [("in/a.wav", "out/a.wav")]
    assert pairs("in/a.wav", output="out") == [("in/a.wav", "out/a.wav")]
    assert pairs("in/a.wav", output="in/sub") == [("in/a.wav", "in/sub/a.wav")]


@pytest.mark.usefixtures("folder")
def test_folders() -> None:
    assert pairs("in") == [("in/a.wav", "in/a.enhanced.wav"), ("in/b.FLAC", "in/b.enhanced.FLAC")]
    assert pairs("in", output="out", recursive=True) == [
        ("in/a.enhanced.wav", "out/a.enhanced.wav"),
        ("in/a.wav", "out/a.wav"),
        ("in/b.FLAC", "out/b.FLAC"),
        ("in/sub/a.wav", "out/sub/a.wav"),
    ]
    assert ("in/sub/a.wav", "in/sub/sub/a.wav") not in pairs("in", output="in/sub", recursive=True)


@pytest.mark.usefixtures("folder")
def test_patterns() -> None:
    assert pairs("in/*.FLAC", output="out") == [("in/b.FLAC", "out/b.FLAC")]
    assert [source for source, _ in pairs("in/**/a.wav")] == ["in/a.wav", "in/sub/a.wav"]
    assert pairs("[x].wav") == [("[x].wav", "[x].enhanced.wav")]


@pytest.mark.usefixtures("folder")
def test_each_file_once() -> None:
    assert [source for source, _ in pairs("in/a.wav", "in", output="out")].count("in/a.wav") == 1


@pytest.mark.usefixtures("folder")
def test_what_cannot_be_done_is_an_error_of_its_own() -> None:
    jobs = plan(["in/a.wav", "in/sub/a.wav", "none*.wav", "empty"], "out")
    assert [bool(job.error) for job in jobs] == [False, True, False, True]
    assert "rename one of them" in jobs[1].error and "no file matches" in jobs[3].error
    Path("empty").mkdir()
    (job,) = plan(["empty"])
    assert "no audio file" in job.error and "-r" in job.error


@pytest.mark.usefixtures("folder")
def test_many_cannot_go_into_one_file() -> None:
    with pytest.raises(SemambaError, match="need a folder"):
        plan(["in", "[x].wav"], "in/notes.txt")


@pytest.mark.usefixtures("folder")
def test_a_name_that_is_too_long_does_not_end_the_batch() -> None:
    long = f"{'x' * 300}.wav"
    assert pairs(long, "in/a.wav", output="out")[1] == ("in/a.wav", "out/a.wav")
