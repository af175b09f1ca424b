"""`semamba listen`: a listening test out of an evaluation, and its outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def listen(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the test.", show_default=False)],
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Results that have sound: semamba benchmark --keep N, semamba evaluate --keep FOLDER.",
                       show_default=False),
    ] = None,
    ratings: Annotated[
        list[Path] | None,
        typer.Option(help="Answers of a listener to the test in --out, to be put together; may be repeated.",
                     show_default=False),
    ] = None,
    method: Annotated[str, typer.Option(help="mushra: rate all versions beside the reference; ab: prefer one of two.")]
    = "mushra",
    trials: Annotated[int, typer.Option(min=1, help="Recordings.")] = 10,
    seed: Annotated[int, typer.Option(help="Of identifiers and order; the page shuffles anew for each listener.")] = 0,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Listening test",
) -> None:  # fmt: skip
    """Make a listening test from RESULTS, or with --ratings the table of what listeners answered.

    The test is one page that works offline: random order, hidden reference, 3.5 kHz anchor, equal loudness.
    """
    if bool(results) == bool(ratings):
        raise typer.BadParameter("give RESULTS to make a test, or --ratings to put answers together")
    if method not in ("mushra", "ab"):
        raise typer.BadParameter("--method is mushra or ab")
    from semamba.evaluation import listening
    from semamba.evaluation.report_data import read_records

    if results:
        made = listening.make_test(read_records(results), out, method, trials, seed, title)
        size = (out / "index.html").stat().st_size / 1e6
        typer.echo(f"{out / 'index.html'}: {len(made)} recordings, {size:.1f} MB; keep key.json from the listeners")
        return
    _show(listening.ratings(out, ratings or []))


def _show(found: object) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from semamba.evaluation.listening import Ratings

    assert isinstance(found, Ratings)
    unit = "score, 0 to 100" if found.method == "mushra" else "preferred, % (ties count half)"
    table = Table(title=f"{found.listeners} listeners", box=box.SIMPLE_HEAD, caption="mean ± half of the 95% interval "
                  "over listeners")  # fmt: skip
    table.add_column("system")
    table.add_column(unit, justify="right")
    for name, value in found.systems.items():
        half = f" ± {value.half_width:.1f}" if value.count > 1 else ""
        table.add_row(escape(name), f"{value.mean:.1f}{half}")
    Console().print(table)
    if found.excluded:
        typer.echo(f"left out, did not find the hidden reference: {', '.join(found.excluded)}", err=True)
    if found.unknown:
        typer.echo(f"{found.unknown} rows belong to another test and were not counted", err=True)
