"""`semamba evaluate`: score recordings, or models on noisy ones, with a clean reference or without."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semamba.errors import SemambaError

if TYPE_CHECKING:
    from semamba.metrics.evaluate import Measures, Preparation, Scored, Wave

Files = list[tuple[str, Path | None, Path]]  # (name, clean file, enhanced or noisy file)


def evaluate(
    clean: Annotated[
        Path | None,
        typer.Option(help="Clean recordings: a folder, or one file. Not needed for --dnsmos and --asr.",
                     show_default=False),
    ] = None,
    enhanced: Annotated[
        Path | None, typer.Option(help="Enhanced recordings with the same relative names.", show_default=False)
    ] = None,
    noisy: Annotated[
        Path | None, typer.Option(help="Noisy recordings with the same relative names.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Enhance --noisy with this model (name or folder); may be repeated.  (default: the shipped"
                     " one)", show_default=False),
    ] = None,
    with_noisy: Annotated[bool, typer.Option("--with-noisy", help="Score the noisy recordings too.")] = False,
    dnsmos: Annotated[bool, typer.Option("--dnsmos", help="Rate without a reference (DNSMOS P.835, P.808).")] = False,
    asr: Annotated[
        str | None,
        typer.Option(metavar="NAME[:SIZE]", help="Count word errors with faster-whisper[:SIZE or FOLDER] or"
                     " pocketsphinx.", show_default=False),
    ] = None,
    transcripts: Annotated[
        Path | None,
        typer.Option(help="What was said: *.trans.txt, .txt, CSV, TSV, JSONL, or a folder of them.",
                     show_default=False),
    ] = None,
    pcs: Annotated[bool, typer.Option("--pcs", help="Apply perceptual contrast stretching before scoring.")] = False,
    trim: Annotated[bool, typer.Option("--trim", help="Cut pairs of unequal length to the shorter.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score only the first N pairs, by name.", show_default=False)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes (default: all processors).", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs: cpu, cuda, ...", show_default=False)] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of each file here.", show_default=False)] = None,
    json: Annotated[Path | None, typer.Option(help="Write means and all scores here.", show_default=False)] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep what the models made, in this folder.", show_default=False)
    ] = None,
) -> None:  # fmt: skip
    """Measure PESQ, STOI, ESTOI, SI-SDR, segmental SNR, CSIG/CBAK/COVL, DNSMOS and word errors, at 16 kHz.

    Files that cannot be scored are named, counted and left out of the mean; the exit code is then 1.
    """
    if (enhanced is None and noisy is None) or (enhanced is not None and model):
        raise typer.BadParameter("give either --enhanced FOLDER, or --noisy FOLDER with or without --model NAME")
    if with_noisy and noisy is None:
        raise typer.BadParameter("--with-noisy needs --noisy FOLDER")
    if clean is None and not (dnsmos or asr):
        raise typer.BadParameter("give --clean FOLDER, or measure without it: --dnsmos, --asr")
    if (asr is None) != (transcripts is None):
        raise typer.BadParameter("--asr NAME and --transcripts FILE belong together")
    from semamba.cli import score_table
    from semamba.metrics import pool, report, wer
    from semamba.metrics.evaluate import Measures, Preparation
    from semamba.metrics.recognisers import many_at_once
    from semamba.metrics.transcripts import read_transcripts

    measures = Measures(intrusive=clean is not None, dnsmos=dnsmos, recogniser=asr or "")
    measures.require_extras()
    said = None
    if transcripts is not None:
        wer.require_extra()
        said = read_transcripts(transcripts)
    for target in (csv, json):
        _check_target(target)
    jobs = jobs or (pool.available_cpus() if asr is None or many_at_once(asr) else 1)
    job = _Job(jobs, Preparation(trim=trim, pcs=pcs), measures, device, keep)

    models = model or ([] if enhanced is not None else [_default_model()])
    labels = report.column_names(models) if len(models) > 1 else ["enhanced"] * len(models)
    tested = noisy if enhanced is None else enhanced
    assert tested is not None
    files, unpaired = _files(clean, tested)
    files, unpaired = (files[:limit], {}) if limit else (files, unpaired)
    columns: dict[str, Sequence[Scored]] = {}
    audio: dict[str, dict[str, str]] = {name: {} for name, _, _ in files}
    if clean is not None and (dnsmos or asr):
        columns["clean"] = job.score("clean", [(name, None, path) for name, path, _ in files if path], plain=True)
    if noisy is not None and (with_noisy or not model or asr or dnsmos):
        names = {name for name, _, _ in files}
        beside = [file for file in _files(clean, noisy)[0] if file[0] in names]
        columns["noisy"] = job.score("noisy", beside, plain=True)
        _note(audio, "noisy", beside)
    if enhanced is not None:
        columns["enhanced"] = job.score("enhanced", files)
        _note(audio, "enhanced", files)
    for name, label in zip(models, labels, strict=True):
        columns[label] = job.enhance(name, files, audio, label)
    for label in columns.keys() - {"clean", "noisy"}:
        columns[label] = [*columns[label], *(_absent(name, reason) for name, reason in unpaired.items())]
    for name, path, _ in files:
        if path is not None:
            audio[name]["clean"] = str(path.absolute())

    words = {label: wer.recognition(scored, said) for label, scored in columns.items()} if said is not None else {}
    title = ", ".join(models) or str(enhanced)
    score_table.show(columns, words, f"{title}{' + PCS' if pcs else ''}")
    if csv is not None:
        prefixes = {("" if label == "enhanced" else f"{label}_"): scored for label, scored in columns.items()}
        report.write_csv(csv, prefixes, {prefix: words.get(prefix[:-1] or "enhanced") for prefix in prefixes})
    if json is not None:
        settings = {"models": models, "pcs": pcs, "trim": trim, "limit": limit, "asr": asr, "command": _command()}
        report.write_json(json, report.results(_set_name(tested), columns, settings, words, audio))
    if any(result.problems for results in columns.values() for result in results) or any(
        found.left_out for found in words.values()
    ):
        raise typer.Exit(1)


class _Job:
    """What all columns of one evaluation have in common."""

    def __init__(
        self, jobs: int, preparation: Preparation, measures: Measures, device: str | None, keep: Path | None
    ) -> None:
        self.jobs, self.preparation, self.measures, self.device, self.keep = jobs, preparation, measures, device, keep

    def score(self, what: str, files: Files, plain: bool = False) -> list[Scored]:
        """Scores of files on disk; `plain` ones are not stretched."""
        from dataclasses import replace

        from semamba.metrics.evaluate import Pair, evaluate_pairs

        preparation = replace(self.preparation, pcs=False) if plain else self.preparation
        measures = replace(self.measures, intrusive=any(clean is not None for _, clean, _ in files))
        with _progress(f"Scoring {what}", len(files)) as advance:
            pairs = [Pair(*file) for file in files]
            return evaluate_pairs(pairs, min(self.jobs, len(files)), preparation, advance, measures)

    def enhance(self, model: str, files: Files, audio: dict[str, dict[str, str]], label: str) -> list[Scored]:
        """Scores of what a model makes of noisy files; kept where the user asked for it, and noted in `audio`."""
        import numpy as np

        import semamba
        from semamba.metrics.evaluate import evaluate_enhancer

        def write(name: str, wave: Wave, rate: int) -> None:
            from semamba.audio import write as write_audio

            if self.keep is not None:
                path = (self.keep / label / name).with_suffix(".wav")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_audio(path, np.asarray(wave, np.float32), rate)
                audio[name][label] = str(path.absolute())

        enhancer = semamba.load(model, device=self.device)
        with _progress(f"Enhancing and scoring with {model}", len(files)) as advance:
            return evaluate_enhancer(
                files, enhancer, min(self.jobs, len(files)), self.preparation, advance, self.measures, write
            )


def _files(clean: Path | None, tested: Path) -> tuple[Files, dict[str, str]]:
    """Pairs and {left over: reason}; without references every audio file of `tested`."""
    from semamba.metrics import pairs

    if clean is not None:
        found, unpaired = pairs.find_pairs(clean, tested)
        return [(name, path, other) for name, path, other in found], unpaired
    return [(name, None, path) for name, path in pairs.find_files(tested)], {}


def _note(audio: dict[str, dict[str, str]], label: str, files: Files) -> None:
    for name, _, path in files:
        audio[name][label] = str(path.absolute())


def _absent(name: str, reason: str) -> Scored:
    from semamba.metrics.evaluate import Scored

    return Scored(name, problems={"file": reason})


def _default_model() -> str:
    from semamba.checkpoint import DEFAULT_MODEL

    return DEFAULT_MODEL


def _set_name(folder: Path) -> str:
    """`corpus/noisy` -> `corpus`: the last folder that says something."""
    named = [part for part in folder.absolute().parts if part not in ("noisy", "enhanced")]
    return named[-1] if named else folder.name


def _command() -> str:
    return shlex.join(["semamba", *sys.argv[1:]])


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[Scored], None]]:
    """A bar on stderr; yields the function to call with each result."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda _: bar.advance(task)


def _check_target(path: Path | None) -> None:
    """Refuse a report that cannot be written before an hour is spent on scoring."""
    import os

    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise SemambaError(f"{path}: the folder {folder} does not exist")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise SemambaError(f"{path}: cannot be written here")
