"""What the scanner of a corpus finds: units to convert, counts to compare, faults to report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from semamba.audio import AUDIO_SUFFIXES, MEDIA_SUFFIXES
from semamba.errors import SemambaError

PAIR = "pair"  # kind of a unit of two files; the other kinds are those of the manifest
_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar", ".7z")


@dataclass(frozen=True)
class Unit:
    """One file, or a clean file with its noisy partner, and where it goes."""

    split: str
    kind: str
    name: str  # of the converted file, without suffix; unique for split, kind and group
    source: Path
    noisy: Path | None = None
    speaker: str = ""
    text: str = ""
    group: str = ""  # folder below the split

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths of the converted file or files (clean, noisy), relative to the output folder."""
        place = [self.split, self.group] if self.group else [self.split]
        if self.kind == PAIR:
            return tuple("/".join([*place, side, f"{self.name}.flac"]) for side in ("clean", "noisy"))
        middle = [self.kind, self.speaker] if self.kind == "speech" and self.speaker else [self.kind]
        return ("/".join([*place, *middle, f"{self.name}.flac"]),)


@dataclass(frozen=True)
class Count:
    """Files in a folder of the archive, and how many its publisher counts (None: not known)."""

    folder: str
    found: int
    expected: int | None = None


@dataclass
class Layout:
    """Result of a scan. `faults` are lines about what is missing; `notes` need no action."""

    units: list[Unit] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wishes:
    """What may be chosen for validation; None leaves the corpus's own rule."""

    valid_speakers: tuple[str, ...] | None = None
    valid_share: float | None = None


@dataclass(frozen=True)
class Corpus:
    """A corpus and the function that knows its folders."""

    name: str
    title: str
    page: str
    licence: str
    scan: Callable[[Path, Wishes], Layout]
    align: bool = False  # the noisy side of a pair may come late, by a delay that is measured and taken out


def audio_below(folder: Path) -> list[Path]:
    """Audio files below a folder, sorted, without what macOS leaves behind."""
    suffixes = AUDIO_SUFFIXES | MEDIA_SUFFIXES
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def find_folder(source: Path, *names: str) -> Path | None:
    """The first of `names` that is a folder in `source`, one level below it, or is `source` itself."""
    for name in names:
        itself = [source] if source.name == name else []
        for folder in (source / name, *itself, *(child / name for child in _children(source))):
            if folder.is_dir():
                return folder
    return None


def need_folder(source: Path, name: str, layout: Layout, expected: int | None = None) -> list[Path]:
    """Audio files of the folder `name`; a missing folder, and every count, is noted in the layout."""
    folder = find_folder(source, name)
    if folder is None:
        layout.faults.append(f"the folder {name} is missing{_packed(source, name)}")
        return []
    files = audio_below(folder)
    count(layout, name, len(files), expected)
    return files


def count(layout: Layout, folder: str, found: int, expected: int | None = None) -> None:
    layout.counts.append(Count(folder, found, expected))
    if not found:
        layout.faults.append(f"{folder} holds no audio files")
    elif expected is not None and found < expected:
        layout.faults.append(f"{folder} holds {found:,} of {expected:,} files")
    elif expected is not None and found > expected:
        layout.notes.append(f"{folder} holds {found:,} files, {found - expected:,} more than published")


def pair_up(layout: Layout, where: str, clean: dict[str, Path], noisy: dict[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Files that share a key; those without partner become one fault."""
    alone = sorted(set(clean) ^ set(noisy))
    if alone and clean and noisy:
        first = clean.get(alone[0]) or noisy[alone[0]]
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        layout.faults.append(f"{where}: {first.parent.name}/{first.name}{more} without partner of the same name")
    return {key: (clean[key], noisy[key]) for key in sorted(clean.keys() & noisy.keys())}


def choose(names: Iterable[str], share: float) -> set[str]:
    """About `share` of the names, at least one of two or more; the same whenever it is asked for the same names."""
    unique = sorted(set(names), key=lambda name: sha256(os.fsencode(name)).hexdigest())
    size = min(max(math.floor(share * len(unique) + 0.5), 1), len(unique) - 1) if share > 0 and len(unique) > 1 else 0
    return set(unique[:size])


def held_out(speakers: Collection[str], wishes: Wishes, default: Collection[str]) -> set[str]:
    """Speakers for validation: the wished ones, or `default`. Raises SemambaError when a wished one is unknown."""
    if wishes.valid_speakers is None:
        return choose(speakers, wishes.valid_share) if wishes.valid_share is not None else set(default)
    unknown = sorted(set(wishes.valid_speakers) - set(speakers))
    if unknown:
        known = ", ".join(sorted(speakers)[:8])
        raise SemambaError(f"validation speaker '{unknown[0]}' is not in the training set; it has {known} ...")
    return set(wishes.valid_speakers)


def flat_name(path: Path, root: Path) -> str:
    """The path below `root` as one file name, without suffix."""
    return "-".join(path.relative_to(root).with_suffix("").parts)


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []


def _packed(source: Path, name: str) -> str:
    for suffix in _ARCHIVES:
        if (source / f"{name}{suffix}").is_file():
            return f" ({name}{suffix} lies there: unpack it)"
    return ""
