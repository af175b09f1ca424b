"""`semamba report`: results of evaluations as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semamba.errors import SemambaError


def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Files of semamba evaluate --json, folders of semamba benchmark.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Results of an earlier run, to say what got worse; may be repeated.", show_default=False),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Speech enhancement, measured",
    audio: Annotated[int, typer.Option(min=0, help="Embed the sound of N files at most.")] = 12,
) -> None:
    """Write one HTML file that opens offline: leaderboard, plots, sound, best and worst files, what got worse.

    Sound is embedded where the results have it: semamba benchmark --keep N, semamba evaluate --keep FOLDER.
    """
    from semamba.evaluation.report_data import read_records
    from semamba.evaluation.report_page import write_report

    if not out.absolute().parent.is_dir():
        raise SemambaError(f"{out}: the folder {out.absolute().parent} does not exist")
    records, earlier = read_records(results), read_records(against) if against else []
    data = write_report(out, records, title, audio, earlier)
    size = out.stat().st_size / 1e6
    heard = sum(len(part["audio"]) for part in data["sets"])
    typer.echo(f"{out}: {len(records)} sets, {heard} files to listen to, {size:.1f} MB")
    if data["changes"] is not None:
        worse = [row for row in data["changes"]["means"] if row["verdict"] == "worse"]
        typer.echo(f"{len(worse)} of {len(data['changes']['means'])} means got worse")
        for row in worse:
            change = f"{row['before']:.3f} -> {row['after']:.3f} ({row['change']:+.3f} ± {row['half_width']:.3f})"
            typer.echo(f"  {row['set']}, {row['system']}, {row['metric']}: {change}")
