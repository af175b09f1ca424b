"""`semamba data`: three commands, their reports, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from semamba.cli import app
from semamba.data.manifest import Manifest


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(5):
        clean = 0.1 * rng.standard_normal(24000)
        for side, samples in (("clean", clean), ("noisy", clean + 0.02 * rng.standard_normal(24000))):
            path = tmp_path / "mine" / side / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, 44100)
    return tmp_path / "mine"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    return result.exit_code, result.output


def test_prepare_join_shard(recordings: Path, tmp_path: Path) -> None:
    code, output = run("prepare", "folder", recordings, "-o", tmp_path / "a", "--jobs", 1)
    assert code == 0 and "own recordings; licence: your own" in output
    assert "train: 4 pairs, 0.0 min" in output and "valid: 1 pairs" in output
    assert "held out for validation, files: " in output and "5 in" in output
    assert "(5 were there already)" in run("prepare", "folder", recordings, "-o", tmp_path / "a", "-j", 1)[1]
    code, output = run("join", tmp_path / "a/manifest.csv", tmp_path / "a/manifest.csv", "-o", tmp_path / "b/both.csv")
    assert code == 0 and "20 rows" in output
    assert all(entry.path.is_file() for entry in Manifest.read(tmp_path / "b/both.csv"))
    pytest.importorskip("webdataset")
    code, output = run("shard", tmp_path / "a/manifest.csv", "-o", tmp_path / "c", "--shard-mb", 0.02)
    assert code == 0 and "8 files in" in output and "2 beside them" in output


def test_bad_files_are_listed_and_the_rest_is_there(recordings: Path, tmp_path: Path) -> None:
    (recordings / "clean/0.wav").write_bytes(b"?")
    (recordings / "noisy/1.wav").unlink()
    code, output = run("prepare", "folder", recordings, "-o", tmp_path / "a", "-j", 1)
    assert code == 1 and "clean/1.wav without partner of the same name" in output and output.count("\n") == 2
    code, output = run("prepare", "folder", recordings, "-o", tmp_path / "a", "-j", 1, "--allow-partial")
    assert code == 0 and "missing: mine: clean/1.wav without partner" in output
    assert "left out: " in output and "clean/0.wav: not a readable audio file" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prepare", "folder", "{here}/absent", "-o", "{here}/o"], 1, "absent: no such folder"),
        (["prepare", "reverb", "{here}/mine", "-o", "{here}/o"], 1, "this is not REVERB challenge: the folder"),
        (["prepare", "folder", "{here}/mine", "-o", "{here}/o", "--valid-speakers", "eve"], 1, "'eve' is not in"),
        (["prepare", "timit", "{here}/mine", "-o", "{here}/o"], 2, "timit"),
        (["prepare", "folder", "{here}/mine"], 2, "--out"),
        (["shard", "{here}/none.csv", "-o", "{here}/o"], 1, "no such manifest"),
        (["join", "{here}/none.csv", "-o", "{here}/o.csv"], 1, "no such manifest"),
    ],
)
def test_mistakes(recordings: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    got, output = run(*(word.format(here=tmp_path) for word in arguments))
    assert got == code and message in output
    assert not (tmp_path / "o").exists()
