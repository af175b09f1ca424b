"""The command line as a whole: help, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from semamba import __version__
from semamba.cli import _Commands, app
from semamba.errors import SemambaError

COMMANDS = ("enhance", "evaluate", "models", "profile", "train", "convert", "doctor")


@pytest.fixture
def failing() -> typer.Typer:
    """An application with our error handling and commands that fail in known ways."""
    toy = typer.Typer(cls=_Commands, pretty_exceptions_enable=False)

    @toy.command()
    def known() -> None:
        raise SemambaError("a.wav: not a sound file; give another")

    @toy.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    @toy.command()
    def unwritable() -> None:
        Path("no/such/folder/x").write_text("")

    @toy.command()
    def bug() -> None:
        raise ZeroDivisionError

    return toy


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(command in result.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    assert CliRunner().invoke(app, [command, "-h"]).exit_code == 0


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"semamba {__version__}\n")


@pytest.mark.parametrize("arguments", [["nonsense"], ["enhance", "--nonsense"], ["enhance"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_a_known_error_is_one_line(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["known"])
    assert result.exit_code == 1
    assert result.stderr == "error: a.wav: not a sound file; give another\n"
    assert result.stdout == ""


def test_what_the_system_refuses_is_one_line(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["unwritable"])
    assert (result.exit_code, result.stderr) == (1, "error: no/such/folder/x: No such file or directory\n")


def test_an_interrupt_exits_with_130(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["interrupted"])
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


def test_a_bug_is_not_hidden(failing: typer.Typer) -> None:
    assert isinstance(CliRunner().invoke(failing, ["bug"]).exception, ZeroDivisionError)


def test_the_script_reports_a_missing_file(tmp_path: Path) -> None:
    script = "from semamba.cli import main; main()"
    command = [sys.executable, "-c", script, "enhance", str(tmp_path / "missing.wav")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "missing.wav" in result.stderr and "Traceback" not in result.stderr
