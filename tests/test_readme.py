"""The README tells the truth: its code runs, its commands exist, its map is complete, its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from semamba.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_commands_and_options_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = [line for block in blocks("bash") for line in re.findall(r"semamba [a-z].*", block)]
    assert {line.split()[1] for line in lines} == commands.keys()
    for line in lines:
        name, *words = line.split("#")[0].split()[1:]
        command = commands[name]
        if hasattr(command, "commands"):
            command = command.commands[words[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word for word in words if re.match(r"-[\w-]", word)}
        assert used <= known, line


def test_start_is_two_commands() -> None:
    starts = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python3 -m venv")]
    assert len(starts) == 2
    assert "semamba enhance examples/noisy.wav" in starts[0] and starts[1].endswith("pytest")


def test_the_map_has_every_file() -> None:
    mapped = set(re.findall(r"^\| \*{0,2}`([^`]+)`", README, flags=re.MULTILINE))
    package = ROOT / "src" / "semamba"
    modules = {str(path.relative_to(package).as_posix()) for path in package.rglob("*.py")}
    modules -= {name for name in modules if name.endswith("/__init__.py")}
    scripts = {str(path.relative_to(ROOT).as_posix()) for path in ROOT.glob("*/*.py") if path.parent.name != "tests"}
    assert modules | scripts <= mapped
    missing = [name for name in mapped if not ((package / name).exists() or (ROOT / name).exists())]
    assert not missing


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_the_table_of_models_is_fresh() -> None:
    script = ROOT / "benchmarks" / "model_table.py"
    result = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
