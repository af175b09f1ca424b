"""`semamba benchmark`: models against test sets and controlled sweeps, as one matrix of scores."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semamba.errors import SemambaError

if TYPE_CHECKING:
    from semamba.evaluation.sets import TestSet


def benchmark(
    models: Annotated[list[str], typer.Argument(help="Models by name or folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results; what is in it already is not measured"
                                      " again.", show_default=False)],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=PATH", help="Recorded pairs: a folder with clean/ and noisy/, or"
                     " MANIFEST.csv@SPLIT; may be repeated.", show_default=False),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUES]", help="Mix --speech and --noise while one thing changes: snr, room, level,"
                     " bandwidth, length; values as -5,0,5 or -5:20:5; may be repeated.", show_default=False),
    ] = None,
    speech: Annotated[
        str | None, typer.Option(help="Utterances of the sweeps: folder or MANIFEST.csv@SPLIT.", show_default=False)
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="Their noise: folder or MANIFEST.csv@SPLIT; noise made by rule comes in addition.",
                     show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Utterances for each value of a sweep.")] = 26,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N pairs of each set.", show_default=False)
    ] = None,
    dnsmos: Annotated[bool, typer.Option("--dnsmos", help="Rate with DNSMOS as well.")] = False,
    asr: Annotated[
        str | None,
        typer.Option(metavar="NAME[:SIZE]", help="Count word errors as well: faster-whisper[:SIZE or FOLDER],"
                     " pocketsphinx.", show_default=False),
    ] = None,
    transcripts: Annotated[
        Path | None, typer.Option(help="What was said, where manifests do not tell.", show_default=False)
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="Keep the sound of N files of each set, for reports.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the mixtures.")] = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes (default: all processors).", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where models run: cpu, cuda, ...", show_default=False)] = None,
) -> None:  # fmt: skip
    """Score models and the noisy input on every set, and print one table for each of the main measures.

    Results go to --out: a JSON file for each set, matrix.json, and scores.jsonl, which makes a second run cost nothing.
    """
    if not sets and not sweep:
        raise typer.BadParameter("give test sets (--set NAME=PATH) or sweeps (--sweep snr), or both")
    if sweep and speech is None:
        raise typer.BadParameter("--sweep needs --speech FOLDER or MANIFEST.csv@SPLIT")
    if transcripts is not None and asr is None:
        raise typer.BadParameter("--transcripts needs --asr NAME")
    from rich.console import Console

    from semamba.evaluation.matrix import Benchmark
    from semamba.metrics import pool
    from semamba.metrics.evaluate import Measures
    from semamba.metrics.recognisers import many_at_once
    from semamba.metrics.transcripts import read_transcripts

    chosen = _chosen_sets(sets or [], sweep or [], speech, noise, count, limit, seed)
    said = read_transcripts(transcripts) if transcripts is not None else {}
    jobs = jobs or (pool.available_cpus() if asr is None or many_at_once(asr) else 1)
    console = Console(stderr=True)
    with console.status("starting") as status:
        runner = Benchmark(
            models,
            out,
            Measures(dnsmos=dnsmos, recogniser=asr or ""),
            jobs,
            device,
            said,
            keep,
            lambda what, done, total: status.update(f"{what}, {done} of {total} files"),
        )
        records = runner.run(chosen, shlex.join(["semamba", *sys.argv[1:]]))
    _show(records, dnsmos, asr)
    console.print(f"{out}: results of {len(records)} sets; {runner.cache.hits} of the scores were there before")
    if _report_problems(console, records):
        raise typer.Exit(1)


def _chosen_sets(
    sets: Sequence[str], sweeps: Sequence[str], speech: str | None, noise: str | None, count: int, limit: int | None,
    seed: int,
) -> list[TestSet]:  # fmt: skip
    from semamba.evaluation.sets import open_material, open_set
    from semamba.evaluation.sweeps import Material, parse_sweep, sweep_sets

    chosen = [open_set(text, limit) for text in sets]
    if speech is not None and sweeps:
        parsed = [parse_sweep(text) for text in sweeps]
        background = open_material(noise, "noise") if noise is not None else ()
        material = Material(open_material(speech, "speech"), background, seed)
        for name, values in parsed:
            chosen += sweep_sets(material, name, values, min(count, limit or count))
    if not chosen:
        raise SemambaError("no test sets were chosen")
    return chosen


def _show(records: list[dict[str, Any]], dnsmos: bool, asr: str | None) -> None:
    """One table for each measure; many sets make many rows, so sets go down and systems across."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from semamba.evaluation.matrix import table
    from semamba.metrics.report import LABELS

    titles = {name: LABELS[name] for name in ("pesq", "stoi", "si_sdr", *(("dnsmos_ovrl",) if dnsmos else ()))}
    titles |= {"wer": f"WER ({asr})"} if asr else {}
    titles["real_time_factor"] = "time for a second of sound [s]"
    console = Console()
    for metric, title in titles.items():
        rows = list(zip(*table(records, metric), strict=True))
        shown = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for index, label in enumerate(rows[0]):
            shown.add_column("set" if index == 0 else escape(label), justify="left" if index == 0 else "right")
        for row in rows[1:]:
            shown.add_row(*(escape(cell) for cell in row))
        console.print(shown)


def _report_problems(console: Any, records: list[dict[str, Any]]) -> bool:
    from rich.markup import escape

    lines = [
        f"{record['set']}, {label}: {file}: {'; '.join(dict.fromkeys(reasons.values()))}"
        for record in records
        for label, found in record["systems"].items()
        for file, reasons in found["left_out"].items()
    ]
    if lines:
        console.print(f"[red]{len(lines)} results are incomplete and left out of the means they lack:[/red]")
    for line in lines[:20]:
        console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
    if len(lines) > 20:
        console.print(f"  and {len(lines) - 20} more, see left_out in the JSON files")
    return bool(lines)
