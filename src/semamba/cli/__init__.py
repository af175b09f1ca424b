"""The command line: one module for each group of commands, and one place where errors become a line and an exit code.

Exit codes: 0 done, 1 something failed (the line on stderr says what), 2 wrong usage, 130 stopped with Ctrl-C.
Command modules import torch and other heavy libraries inside their functions, so that help answers at once.
"""

from __future__ import annotations

import errno
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from semamba import __version__
from semamba.cli import (
    ablate,
    benchmark,
    data,
    doctor,
    enhance,
    evaluate,
    export,
    listen,
    live,
    models,
    profile,
    report,
    serve,
    train,
)
from semamba.errors import SemambaError


class _Commands(TyperGroup):
    """Runs a command and turns what a person can act on into one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SemambaError as error:
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever reads our output has read enough
                raise
            where = f"{error.filename}: " if error.filename else ""
            typer.secho(f"error: {where}{error.strerror or error}", fg="red", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.secho("stopped", fg="yellow", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"semamba {__version__}")
        raise typer.Exit


@app.callback()
def semamba(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Better speech from noisy recordings, with Mamba state-space models. Start with: semamba enhance FILE"""


app.command("enhance")(enhance.enhance)
app.command("evaluate")(evaluate.evaluate)
app.command("benchmark")(benchmark.benchmark)
app.command("live")(live.live)
app.command("models")(models.models)
app.command("profile")(profile.profile)
app.command("listen")(listen.listen)
app.command("report")(report.report)
app.command("serve")(serve.serve)
app.command("train")(train.train)
app.add_typer(data.app, name="data")
app.command("ablate")(ablate.ablate)
app.command("convert")(models.convert)
app.command("export")(export.export)
app.command("doctor")(doctor.doctor)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    """One line for a person, without the place in the sources."""
    typer.secho(f"warning: {message}", fg="yellow", err=True)


def main() -> None:
    """Entry point of the `semamba` script."""
    warnings.showwarning = _show_warning
    app(prog_name="semamba")
