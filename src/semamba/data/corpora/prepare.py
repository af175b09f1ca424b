"""From a scanned corpus to converted files, a manifest, and a report of what was found on the way.

A journal (prepared.jsonl in the output folder) has a line for every unit that is done: a later call keeps what is still
as it was, by size and time of the sources and size of the results, and goes on where an earlier one stopped.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from semamba.data.corpora.convert import RATE, RESAMPLER, Record, Settings, convert
from semamba.data.corpora.layout import PAIR, Corpus, Layout, Unit, Wishes
from semamba.data.manifest import Entry, Manifest
from semamba.errors import SemambaError
from semamba.files import write_atomic
from semamba.processes import follow_parent

JOURNAL, MANIFEST, PROBLEMS = "prepared.jsonl", "manifest.csv", "problems.csv"
_KEPT = ("seconds", "note", "linked")  # of a record, in the journal
_CHUNK = 8  # units handed to a worker at once


@dataclass
class Report:
    """What a person wants to know afterwards. `problems` and `notes` are lines about single units."""

    manifest: Path
    layout: Layout
    files: Counter[tuple[str, str]] = field(default_factory=Counter)  # by split and kind
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    speakers: dict[str, set[str]] = field(default_factory=dict)  # by split
    kept: int = 0  # units that an earlier call had done
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prepare(
    corpus: Corpus,
    source: Path,
    out: Path,
    wishes: Wishes | None = None,
    settings: Settings | None = None,
    allow_partial: bool = False,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check the archive in `source`, convert it to `out` and write out/manifest.csv.

    Raises SemambaError when folders or files are missing (unless `allow_partial`), or nothing usable is left.
    """
    settings = settings or Settings(align=corpus.align)
    if not source.is_dir():
        raise SemambaError(f"{source}: no such folder; unpack the archives of {corpus.title} there")
    layout = corpus.scan(source, wishes or Wishes())
    check(layout, corpus, source, allow_partial)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SemambaError(f"{out}: cannot be used as output folder ({error.strerror})") from None
    records, kept = _convert_all(layout.units, out, settings, jobs, progress)
    report = _summarise(records, layout, out, kept)
    _write_problems(out / PROBLEMS, report)
    entries = tuple(entry for record in records if not record.problem for entry in _entries(record, corpus, out))
    if not entries:
        raise SemambaError(f"{source}: none of {len(records)} files is usable, the first: {report.problems[0]}")
    Manifest(entries).write(report.manifest)
    return report


def check(layout: Layout, corpus: Corpus, source: Path, allow_partial: bool) -> None:
    """Refuse an archive that is not all there, in one line."""
    names = Counter(target for unit in layout.units for target in unit.targets)
    if twice := [name for name, times in names.items() if times > 1]:
        layout.faults.append(f"{len(twice)} names occur twice, for example {Path(twice[0]).stem}")
    if not layout.units:
        raise SemambaError(f"{source}: this is not {corpus.title}: {'; '.join(layout.faults) or 'no audio files'}")
    if layout.faults and not allow_partial:
        raise SemambaError(
            f"{source}: {corpus.title} is not complete: {'; '.join(layout.faults)}; complete it, or take what is there "
            "with --allow-partial"
        )
    if twice:
        layout.units = list({unit.targets: unit for unit in layout.units}.values())


def _convert_all(
    units: list[Unit], out: Path, settings: Settings, jobs: int, progress: Callable[[int, int], None]
) -> tuple[list[Record], int]:
    """A record for every unit, in their order, and how many of them the journal had."""
    done = _read_journal(units, out, settings)
    todo = [index for index in range(len(units)) if index not in done]
    kept = len(done)
    progress(kept, len(units))
    with (out / JOURNAL).open("a", encoding="utf-8") as journal:
        for index, record in zip(todo, _results([units[i] for i in todo], out, settings, jobs), strict=True):
            done[index] = record
            if not record.problem:  # a bad file is looked at again: its reason may have gone away
                journal.write(json.dumps({"stamp": _stamp(record.unit, settings), **_plain(record, out)}) + "\n")
                journal.flush()
            progress(len(done), len(units))
    return [done[index] for index in range(len(units))], kept


def _results(units: list[Unit], out: Path, settings: Settings, jobs: int) -> Iterator[Record]:
    work = partial(convert, out=out, settings=settings)
    if jobs <= 1 or len(units) <= _CHUNK:
        yield from map(work, units)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=follow_parent) as pool:
        try:
            yield from pool.map(work, units, chunksize=_CHUNK)
        except BrokenProcessPool:
            raise SemambaError(
                "a worker process died (out of memory?); the same command goes on where it stopped, try --jobs 1"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _stamp(unit: Unit, settings: Settings) -> list[Any]:
    """What must not have changed for a result to be kept: the sources, and what is made of them."""
    stats = [path.stat() for path in (unit.source, unit.noisy) if path is not None and path.is_file()]
    return [
        *(unit.targets[0], unit.kind, RATE, RESAMPLER, asdict(settings)),
        *([str(unit.source), str(unit.noisy or "")]),
        [[stat.st_size, stat.st_mtime_ns] for stat in stats],
    ]


def _plain(record: Record, out: Path) -> dict[str, Any]:
    sizes = [] if record.linked else [(out / target).stat().st_size for target in record.unit.targets]
    values = {name: getattr(record, name) for name in _KEPT}
    return {**values, "sizes": sizes}


def _read_journal(units: list[Unit], out: Path, settings: Settings) -> dict[int, Record]:
    """Records of an earlier call that still hold, by the index of their unit."""
    try:
        lines = (out / JOURNAL).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    known: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            known[json.dumps(entry["stamp"])] = entry
        except (ValueError, KeyError, TypeError):
            continue  # the line that a kill cut short
    done = {}
    for index, unit in enumerate(units):
        entry = known.get(json.dumps(_stamp(unit, settings)))
        if entry is not None and _still_there(unit, out, entry["sizes"]):
            done[index] = Record(unit, **{name: entry[name] for name in _KEPT})
    return done


def _still_there(unit: Unit, out: Path, sizes: list[int]) -> bool:
    try:
        return all(os.stat(out / target).st_size == size for target, size in zip(unit.targets, sizes, strict=False))
    except OSError:
        return False


def _entries(record: Record, corpus: Corpus, out: Path) -> Iterator[Entry]:
    unit = record.unit
    kinds = ("paired_clean", "paired_noisy") if unit.kind == PAIR else (unit.kind,)
    paths = [unit.source.absolute()] if record.linked else [out.absolute() / target for target in unit.targets]
    for kind, path in zip(kinds, paths, strict=True):
        text = {"speaker": unit.speaker, "text": unit.text, "source": corpus.title, "licence": corpus.licence}
        yield Entry(path, unit.split, kind, seconds=record.seconds, **text)


def _summarise(records: list[Record], layout: Layout, out: Path, kept: int) -> Report:
    report = Report(out / MANIFEST, layout, kept=kept)
    for record in records:
        unit = record.unit
        if record.problem:
            report.problems.append(record.problem)
            continue
        if record.note:
            report.notes.append(record.note)
        key = (unit.split, unit.kind)
        report.files[key] += 1
        report.seconds[key] = report.seconds.get(key, 0.0) + record.seconds
        if unit.speaker:
            report.speakers.setdefault(unit.split, set()).add(unit.speaker)
    others = report.speakers.get("valid", set()) | report.speakers.get("test", set())
    if both := report.speakers.get("train", set()) & others:
        report.layout.notes.append(f"speakers in training and elsewhere: {', '.join(sorted(both)[:5])}")
    return report


def _write_problems(path: Path, report: Report) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(("fate", "what"))
            rows.writerows([("left out", line) for line in report.problems] + [("kept", line) for line in report.notes])

    if report.problems or report.notes:
        write_atomic(path, fill)
    else:
        path.unlink(missing_ok=True)
