"""Which files are meant and where their results go: files, folders, patterns, lists; a folder maps to a folder."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from semamba.audio import AUDIO_SUFFIXES, MEDIA_SUFFIXES
from semamba.errors import SemambaError
from semamba.inference.files import default_target

_MARK = ".enhanced"


@dataclass(frozen=True)
class Job:
    """One file to do; with `error` set there is nothing to do but to say so."""

    source: Path
    target: Path
    error: str = ""


def plan(inputs: Sequence[str], output: str | None = None, recursive: bool = False) -> list[Job]:
    """Jobs for the inputs in order, each source once.

    Without `output` results lie beside their sources. With it, one file goes to that name (or into that folder when it
    is one); several files and folders go into that folder, those of a folder under the names relative to it.
    Raises SemambaError when several inputs cannot go to one file.
    """
    found: list[tuple[Path, Path]] = []  # source, its name inside an output folder
    failed: list[Job] = []
    several = len(inputs) > 1
    for text in inputs:
        path = Path(text)
        if not os.path.exists(text) and glob.has_magic(text):  # False too where nobody may look
            matches = sorted(glob.glob(text, recursive=True))
            several = True
            if not matches:
                failed.append(Job(path, path, f"{text}: no file matches this pattern"))
        else:
            matches = [text]
        for match in matches:
            one = Path(match)
            if one.suffix.lower() == ".csv" and os.path.isfile(one):
                several = True
                found += _listed(one)
                continue
            if not os.path.isdir(one):
                found.append((one, Path(one.name)))
                continue
            several = True
            inside = sorted(_scan(one, recursive, output))
            if not inside:
                advice = "" if recursive else "; -r looks into its sub-folders too"
                failed.append(Job(one, one, f"{one}: no audio file in this folder{advice}"))
            found += [(file, file.relative_to(one)) for file in inside]
    return _targets(found, output, several) + failed


def _listed(manifest: Path) -> list[tuple[Path, Path]]:
    """The files of a CSV with a column `path`, relative to its folder; results keep these relative paths."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            if "path" not in (rows.fieldnames or []):
                raise SemambaError(f"{manifest}: a list of files needs a column 'path' in its first line")
            names = [Path(row["path"]) for row in rows if (row["path"] or "").strip()]
    except (OSError, csv.Error) as error:
        raise SemambaError(f"{manifest}: cannot be read as a CSV list of files ({error})") from None
    return [(manifest.parent / name, _inside(name)) for name in names]


def _inside(name: Path) -> Path:
    """The path as one below an output folder, whatever it starts with."""
    return Path(*(part for part in name.parts if part not in ("..", name.anchor)))


def _scan(folder: Path, recursive: bool, output: str | None) -> Iterable[Path]:
    """Audio files of a folder, without hidden files and results of earlier runs."""
    aside = Path(output).resolve() if output is not None else None
    for where, folders, names in os.walk(folder):
        here = Path(where)
        folders[:] = [
            name
            for name in folders
            if recursive and not name.startswith(".") and (aside is None or (here / name).resolve() != aside)
        ]
        for name in names:
            path = here / name
            if name.startswith(".") or path.suffix.lower() not in AUDIO_SUFFIXES | MEDIA_SUFFIXES:
                continue
            if output is None and path.stem.endswith(_MARK):
                continue
            yield path


def _targets(found: list[tuple[Path, Path]], output: str | None, several: bool) -> list[Job]:
    into_folder = False
    if output is not None:
        named_as_folder = output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix
        into_folder = several or named_as_folder
        if several and Path(output).is_file():
            raise SemambaError(f"{output}: is a file; several inputs need a folder as -o")
    jobs: list[Job] = []
    sources: set[Path] = set()
    taken: dict[Path, Path] = {}
    for source, name in found:
        identity = source.resolve()
        if identity in sources:
            continue
        sources.add(identity)
        target = Path(output or "")
        if output is None:
            target = default_target(source)
        elif into_folder:
            target = target / name
        other = taken.setdefault(target.resolve(), source)
        error = "" if other is source else f"{source}: its result would replace that of {other}; rename one of them"
        jobs.append(Job(source, target, error))
    return jobs
