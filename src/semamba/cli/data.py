"""`semamba data`: corpora and one's own recordings become manifests to train on, and shards of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semamba.data.corpora import Corpus
    from semamba.data.corpora.prepare import Report

app = typer.Typer(no_args_is_help=True, help="Prepare material to train on: manifests, shards.")

_SHOWN = 8  # lines about single files


class CorpusName(StrEnum):
    VOICEBANK_DEMAND = "voicebank-demand"
    DNS = "dns"
    REVERB = "reverb"
    LIBRISPEECH = "librispeech"
    FOLDER = "folder"


@app.command()
def prepare(
    corpus: Annotated[CorpusName, typer.Argument(help="Which layout; folder is for your own.", show_default=False)],
    source: Annotated[Path, typer.Argument(help="Where its archives are unpacked.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for manifest.csv and converted files.")],
    valid_speakers: Annotated[
        str | None, typer.Option(help="Speakers to hold out for validation, for example p226,p287.", show_default=False)
    ] = None,
    valid_share: Annotated[
        float | None, typer.Option(help="Or how many of them, 0 to 1.", min=0, max=0.9, show_default=False)
    ] = None,
    align: Annotated[
        bool | None,
        typer.Option("--align/--no-align", help="Take a measured delay out of pairs (default: reverb and folder do)."),
    ] = None,
    copy: Annotated[bool, typer.Option(help="Also copy files that need no conversion.")] = False,
    allow_partial: Annotated[bool, typer.Option(help="Go on when files of the archive are missing.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; 0 is one for each core.", min=0)] = 0,
) -> None:
    """Check an unpacked corpus, convert it to 16-kHz FLAC, and write DIR/manifest.csv.

    Call it again after an interruption: what is done is kept.
    """
    import os

    from semamba.data.corpora import CORPORA, Wishes
    from semamba.data.corpora.convert import Settings
    from semamba.data.corpora.prepare import prepare as run

    chosen = CORPORA[corpus.value]
    typer.echo(f"{chosen.title}{f', {chosen.page}' if chosen.page else ''}; licence: {chosen.licence}")
    speakers = tuple(name.strip() for name in valid_speakers.split(",")) if valid_speakers else None
    settings = Settings(copy=copy, align=chosen.align if align is None else align)
    with _progress("Preparing") as progress:
        report = run(
            *(chosen, source, out, Wishes(speakers, valid_share), settings, allow_partial),
            jobs=jobs or os.cpu_count() or 1,
            progress=progress,
        )
    _print_report(report, chosen)


@app.command()
def shard(
    manifest: Annotated[Path, typer.Argument(help="Manifest in CSV.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for manifest.csv and the shards.")],
    shard_mb: Annotated[float, typer.Option(help="About the size of a shard.", min=0.01)] = 512,
    split: Annotated[str, typer.Option(help="What to pack; the rest keeps its files.")] = "train",
    seed: Annotated[int, typer.Option(help="Of the order in which files are packed.")] = 0,
) -> None:
    """Pack a corpus that is too large for memory into tar archives; train with --data DIR/manifest.csv as always."""
    from semamba.data.manifest import Manifest
    from semamba.data.shards import write_shards

    with _progress("Packing") as progress:
        packed = write_shards(Manifest.read(manifest), out, split, shard_mb, seed=seed, progress=progress)
    shards = {entry.shard for entry in packed if entry.shard}
    rows = sum(entry.shard is not None for entry in packed)
    typer.echo(f"{rows:,} files in {len(shards)} shards, {len(packed) - rows:,} beside them; {out / 'manifest.csv'}")


@app.command()
def join(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests in CSV.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The manifest to write.")],
) -> None:
    """Make one manifest of several, for example speech of one corpus and noise of another."""
    from semamba.data.manifest import Manifest

    entries = tuple(entry for path in manifests for entry in Manifest.read(path))
    Manifest(entries).write(out)
    typer.echo(f"{len(entries):,} rows in {out}")


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; yields a function of (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_report(report: Report, corpus: Corpus) -> None:
    for (split, kind), files in sorted(report.files.items()):
        speakers = len(report.speakers.get(split, ())) if kind in ("pair", "speech") else 0
        what = {"pair": "pairs", "rir": "room responses"}.get(kind, f"{kind} files")
        voices = f", {speakers} speakers" if speakers else ""
        typer.echo(f"{split}: {files:,} {what}, {report.seconds[split, kind] / 60:.1f} min{voices}")
    for line in report.layout.faults:
        typer.secho(f"missing: {line}", fg="yellow", err=True)
    for line in report.layout.notes:
        typer.echo(line)
    for title, lines in (("left out", report.problems), ("noted", report.notes)):
        for line in lines[:_SHOWN]:
            typer.secho(f"{title}: {line}", fg="yellow", err=True)
        if len(lines) > _SHOWN:
            more = f"{title}: {len(lines) - _SHOWN} more, see {report.manifest.parent / 'problems.csv'}"
            typer.secho(more, fg="yellow", err=True)
    kept = f" ({report.kept:,} were there already)" if report.kept else ""
    typer.echo(f"{sum(report.files.values()):,} in {report.manifest}{kept}")
