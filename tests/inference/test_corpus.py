"""Many files: shards, lists, processes, failures in writing, nothing done twice."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from semamba import audio
from semamba.cli import app
from semamba.errors import SemambaError
from semamba.inference import corpus
from semamba.inference.corpus import DONE, FAILED, KEPT, Work, choose_shard, rows_of, run_processes, write_failures
from semamba.inference.plan import Job, plan

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short files, one of them no sound at all."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for index in range(4):
        wave = 0.1 * rng.standard_normal((1, RATE // 4), np.float32)
        (root / f"speaker{index % 2}").mkdir(exist_ok=True)
        audio.write(root / f"speaker{index % 2}/u{index}.wav", wave, RATE)
    (root / "broken.wav").write_bytes(b"RIFF0000")
    return root


def test_processes(folder: Path, tmp_path: Path) -> None:
    ready, failed = rows_of(plan([str(folder)], str(tmp_path / "out"), recursive=True))
    assert len(ready) == 5 and not failed
    found = {Path(row["source"]).name: row for row in run_processes(ready, Work(), 2)}
    assert {name: row["status"] for name, row in found.items()} == {
        "broken.wav": FAILED, "u0.wav": DONE, "u1.wav": DONE, "u2.wav": DONE, "u3.wav": DONE,
    }  # fmt: skip
    assert "broken.wav" in found["broken.wav"]["message"] and found["u0.wav"]["seconds"] == 0.25
    target = tmp_path / "out/speaker0/u2.wav"
    import semamba

    wave, _ = audio.read(folder / "speaker0/u2.wav")
    assert np.abs(audio.read(target)[0] - semamba.load(device="cpu")(wave)).max() < 1e-4
    before = target.stat()
    again = {row["status"] for row in run_processes(ready, Work(), 1)}
    assert again == {KEPT, FAILED} and target.stat() == before


def _die(batch: list[corpus.Row]) -> list[corpus.Row]:
    if any("u1" in row["source"] for row in batch):
        os._exit(1)
    return [row | {"status": DONE} for row in batch]


def test_a_process_that_dies_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_work_on", _die)
    rows = [{"source": f"u{i}", "target": f"t{i}"} for i in range(3)]
    found = {row["source"]: row["status"] for row in run_processes(rows, Work(), 1)}
    assert found == {"u0": DONE, "u1": FAILED, "u2": DONE}


def test_a_process_that_dies_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_work_on", _die)
    monkeypatch.setattr(corpus, "BATCH", 1)
    rows = [{"source": f"u{i}", "target": f"t{i}"} for i in range(4)]
    found = {}
    for row in run_processes(rows, Work(), 1):
        found[row["source"]] = row["status"]
        time.sleep(1)
    assert found == {"u0": DONE, "u1": FAILED, "u2": DONE, "u3": DONE}


@pytest.mark.parametrize(
    ("extra", "message"),
    [(["--model", "causal-smal"], "did you mean 'causal-small'?"), (["--device", "quantum"], "cannot be used here")],
)
def test_a_wrong_model_or_device_is_said_once(folder: Path, tmp_path: Path, extra: list[str], message: str) -> None:
    arguments = ["enhance", str(folder), "-r", "-o", str(tmp_path / "out"), "--engine", "processes"]
    result = CliRunner().invoke(app, [*arguments, *extra])
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_input_is_no_output_of_an_earlier_run(folder: Path) -> None:
    inside = folder / "speaker0"
    result = CliRunner().invoke(app, ["enhance", str(inside), "-o", str(inside), "--engine", "processes"])
    assert result.exit_code == 1 and "0 enhanced, 0 were there, 2 failed" in result.stderr
    assert result.stderr.count("the output would replace the input") == 2


def test_shards_are_all_files_once() -> None:
    jobs = [Job(Path(str(i)), Path(f"t{i}")) for i in range(10)]
    parts = [choose_shard(jobs, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(int(job.source.name) for part in parts for job in part) == list(range(10))
    assert [len(part) for part in parts] == [4, 3, 3]
    for text in ("0/3", "4/3", "a/b", "1"):
        with pytest.raises(SemambaError, match="write I/N"):
            choose_shard(jobs, text)


def test_a_list_of_files(folder: Path, tmp_path: Path) -> None:
    listed = folder / "list.csv"
    listed.write_text("path,split\nspeaker0/u0.wav,train\n../elsewhere/x.wav,train\n")
    jobs = plan([str(listed)], str(tmp_path))
    assert [(job.source, job.target) for job in jobs] == [
        (folder / "speaker0/u0.wav", tmp_path / "speaker0/u0.wav"),
        (folder / "../elsewhere/x.wav", tmp_path / "elsewhere/x.wav"),
    ]
    listed.write_text("name\nx\n")
    with pytest.raises(SemambaError, match="needs a column 'path'"):
        plan([str(listed)], str(tmp_path))


def test_names_that_are_not_utf8_in_lists(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / "list.csv").write_bytes(b"path\ncaf\xe9.wav\n")
    jobs = plan([str(tmp_path / "list.csv")], str(tmp_path / "out"))
    assert [job.source for job in jobs] == [tmp_path / name]
    rows = [{"source": str(job.source), "target": str(job.target), "status": FAILED, "message": "no"} for job in jobs]
    assert write_failures(tmp_path / "failed.csv", rows) == 1
    assert b"/caf\xe9.wav,no" in (tmp_path / "failed.csv").read_bytes()


def test_the_command(folder: Path, tmp_path: Path) -> None:
    arguments = ["enhance", str(folder), "-r", "-o", str(tmp_path / "out"), "--engine", "processes",
                 "--failures", str(tmp_path / "failed.csv")]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and "4 enhanced, 0 were there, 1 failed" in result.stderr
    rows = list(csv.DictReader((tmp_path / "failed.csv").open()))
    assert [Path(row["source"]).name for row in rows] == ["broken.wav"] and rows[0]["message"]
    again = CliRunner().invoke(app, [*arguments, "--shard", "2/5"])
    assert again.exit_code == 0 and "0 enhanced, 1 were there, 0 failed" in again.stderr


def test_what_cannot_be_planned_is_said(tmp_path: Path) -> None:
    arguments = ["enhance", str(tmp_path / "nothing*.wav"), "-o", str(tmp_path / "out"), "--engine", "processes"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and "no file matches this pattern" in result.stderr and "1 failed" in result.stderr


def test_a_cluster_is_used_whole_unless_said_otherwise(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run_ray(rows: list[corpus.Row], work: Work, address: str | None, workers: int) -> Iterator[corpus.Row]:
        asked.append(workers)
        yield from (row | {"status": KEPT, "message": "", "seconds": 0.0, "elapsed": 0.0} for row in rows)

    monkeypatch.setattr("semamba.inference.cluster.run_ray", run_ray)
    for extra in ([], ["-j", "3"]):
        assert (
            CliRunner().invoke(app, ["enhance", str(folder), "-r", "-o", "out", "--engine", "ray", *extra]).exit_code
            == 0
        )
    assert asked == [0, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "magic"], "there are threads, processes, ray"),
        (["--address", "x"], "--address belongs to --engine ray"),
        (["--engine", "processes", "-o", "-"], "works on files, not on pipes"),
        (["--failures", "failed.csv", "-o", "-"], "a pipe is none"),
        (["--failures", "no/such/failed.csv"], "does not exist"),
    ],
)
def test_what_does_not_go_together(folder: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["enhance", str(folder), *arguments])
    assert result.exit_code == 1 and message in result.stderr
