"""`semamba evaluate` from folders to table, CSV and JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import semamba
from semamba import audio
from semamba.cli.evaluate import evaluate
from semamba.errors import SemambaError

pytest.importorskip("pesq")
pytest.importorskip("pystoi")

RATE = 16000


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean/ and noisy/ with two good pairs, a silent output and a clean file without partner."""
    root = tmp_path_factory.mktemp("sets")
    time = np.arange(RATE) / RATE
    voice = 0.1 * sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    clean = voice * np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None)
    noise = np.random.default_rng(0).standard_normal((2, RATE))
    for part in ("clean", "noisy"):
        (root / part).mkdir()
    for index in range(2):
        audio.write(root / f"clean/{index}.wav", (clean + 1e-4 * noise[0])[None].astype(np.float32), RATE)
        audio.write(root / f"noisy/{index}.flac", (clean + 0.02 * noise[index])[None].astype(np.float32), RATE)
    audio.write(root / "clean/silent.wav", clean[None].astype(np.float32), RATE)
    audio.write(root / "noisy/silent.wav", np.zeros((1, RATE), np.float32), RATE)
    audio.write(root / "clean/alone.wav", clean[None].astype(np.float32), RATE)
    return root


def run(*arguments: object):  # type: ignore[no-untyped-def]
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_folders_to_reports(folders: Path, tmp_path: Path) -> None:
    result = run(
        "--clean", folders / "clean", "--enhanced", folders / "noisy", "--jobs", 1,
        "--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv",
    )  # fmt: skip
    assert result.exit_code == 1  # two files are left out
    assert "PESQ-WB" in result.stdout and "SI-SDR" in result.stdout
    assert "2 of 4 enhanced files left out" in result.stderr
    assert "silent.wav: the enhanced signal is silent" in result.stderr and "alone.wav: no file" in result.stderr
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["set"] == folders.name and record["versions"]["pesq"]
    assert Path(record["audio"]["0.wav"]["enhanced"]) == folders / "noisy/0.flac"
    found = record["systems"]["enhanced"]
    assert set(found["files"]) == {"0.wav", "1.wav"} and found["count"]["pesq"] == 2
    assert found["mean"]["pesq"] == pytest.approx(np.mean([scores["pesq"] for scores in found["files"].values()]))
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [row["file"] for row in rows] == ["0.wav", "1.wav", "silent.wav", "alone.wav"]


def test_model_beside_noisy(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import semamba

    def load(name: str, device: str | None = None):  # type: ignore[no-untyped-def]
        assert (name, device) == ("some-model", "cpu")
        return lambda wave, rate: 0.5 * wave

    monkeypatch.setattr(semamba, "load", load, raising=False)
    result = run(
        "--clean", folders / "clean", "--noisy", folders / "noisy", "--model", "some-model", "--device", "cpu",
        "--with-noisy", "--limit", 2, "--jobs", 1, "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "change" in result.stdout
    record = json.loads((tmp_path / "r.json").read_text())
    noisy, enhanced = record["systems"]["noisy"], record["systems"]["enhanced"]
    assert noisy["count"]["stoi"] == enhanced["count"]["stoi"] == 2
    assert enhanced["mean"]["si_sdr"] == pytest.approx(noisy["mean"]["si_sdr"], abs=1e-4)
    assert record["settings"]["models"] == ["some-model"]


def test_several_models_kept(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import semamba

    gains = {"one-best": 0.5, "two-best": 0.25}  # folders of one name are told apart by what is before

    def load(name: str, device: object = None) -> object:
        return lambda wave, rate: gains[name.replace("/", "-")] * wave

    monkeypatch.setattr(semamba, "load", load, raising=False)
    result = run(
        "--clean", folders / "clean", "--noisy", folders / "noisy", "--model", "one/best", "--model", "two/best",
        "--limit", 1, "--jobs", 1, "--json", tmp_path / "r.json", "--keep", tmp_path / "kept",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "r.json").read_text())
    assert list(record["systems"]) == ["one-best", "two-best"]
    peaks = {name: float(np.abs(audio.read(Path(record["audio"]["0.wav"][name]))[0]).max()) for name in gains}
    assert peaks["one-best"] == pytest.approx(2 * peaks["two-best"], rel=1e-3)


def test_ratings_and_words_without_a_reference(folders: Path, tmp_path: Path) -> None:
    for library in ("onnxruntime", "speechmos", "pocketsphinx", "jiwer", "whisper_normalizer"):
        pytest.importorskip(library)
    (tmp_path / "said.csv").write_text("path,text\n0.wav,hello world\n")
    result = run(
        "--enhanced", folders / "noisy", "--dnsmos", "--asr", "pocketsphinx", "--transcripts", tmp_path / "said.csv",
        "--jobs", 1, "--limit", 2, "--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv",
    )  # fmt: skip
    assert result.exit_code == 1 and "1.flac (words): no transcript" in result.stderr
    assert "DNSMOS OVRL" in result.stdout and "WER" in result.stdout and "PESQ" not in result.stdout
    found = json.loads((tmp_path / "r.json").read_text())["systems"]["enhanced"]
    assert found["count"]["dnsmos_ovrl"] == 2 and found["words"]["count"] == 1
    assert found["words"]["words"]["length"] == 2
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert float(rows[0]["wer"]) > 0 and rows[1]["wer"] == ""


@pytest.mark.parametrize(
    "arguments", [[], ["--enhanced", "x", "--noisy", "y", "--model", "m"], ["--enhanced", "x", "--with-noisy"]]
)
def test_wrong_usage(folders: Path, arguments: list[str]) -> None:
    assert run("--clean", folders / "clean", *arguments).exit_code == 2
    assert run("--enhanced", folders / "clean").exit_code == 2  # without a reference there must be something to measure
    assert run("--enhanced", folders / "clean", "--asr", "pocketsphinx").exit_code == 2


def test_an_unwritable_report_is_refused_at_once(folders: Path, tmp_path: Path) -> None:
    result = run("--clean", folders, "--enhanced", folders, "--json", tmp_path / "missing" / "r.json")
    assert isinstance(result.exception, SemambaError) and "does not exist" in str(result.exception)


def test_pcs_stretches_what_the_model_made_and_nothing_else(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semamba, "load", lambda name, device=None: lambda wave, rate: 0.5 * wave, raising=False)
    scores = []
    for extra in ([], ["--pcs"]):
        result = run("--clean", folders / "clean", "--noisy", folders / "noisy", "--model", "m", "--with-noisy",
                     "--limit", 1, "--jobs", 1, "--json", tmp_path / "r.json", *extra)  # fmt: skip
        assert result.exit_code == 0, result.output
        systems = json.loads((tmp_path / "r.json").read_text())["systems"]
        scores.append({label: system["files"]["0.wav"] for label, system in systems.items()})
    assert scores[1]["noisy"] == pytest.approx(scores[0]["noisy"], abs=1e-6)
    assert scores[1]["enhanced"] != pytest.approx(scores[0]["enhanced"], abs=1e-3)
