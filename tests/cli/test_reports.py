"""`semamba report` and `semamba listen`: what they print, what they refuse."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from semamba.cli import app
from tests.evaluation.test_listening import SCORES, answer
from tests.evaluation.test_report import write_results


def test_report(tmp_path: Path) -> None:
    earlier, later = (str(write_results(tmp_path / name, shift)) for name, shift in (("a", 0.5), ("b", 0.2)))
    words = ["report", later, "--against", earlier, "-o", str(tmp_path / "r.html"), "--audio", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "1 sets, 1 files to listen to" in result.stdout and "8 of 24 means got worse" in result.stdout
    assert "  sweep, better, pesq: " in result.stdout and "(-0.300 ±" in result.stdout
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_listen(tmp_path: Path) -> None:
    test = str(tmp_path / "test")
    made = CliRunner().invoke(app, ["listen", str(write_results(tmp_path / "a")), "-o", test, "--trials", "1"])
    assert made.exit_code == 0 and "1 recordings" in made.stdout, made.output
    ratings = str(answer(tmp_path / "test", tmp_path / "me.csv", SCORES))
    found = CliRunner().invoke(app, ["listen", "-o", test, "--ratings", ratings])
    assert found.exit_code == 0 and "1 listeners" in found.stdout and "70.0" in found.stdout, found.output
    for wrong in ([], ["x.json", "--ratings", "y.csv"], ["x.json", "--method", "best"]):
        assert CliRunner().invoke(app, ["listen", "-o", test, *wrong]).exit_code == 2
