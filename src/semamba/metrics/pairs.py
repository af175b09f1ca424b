"""Which enhanced (or noisy) file belongs to which clean file."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from semamba import audio
from semamba.errors import SemambaError

SUFFIXES = audio.AUDIO_SUFFIXES | audio.MEDIA_SUFFIXES


def find_pairs(clean: Path, other: Path) -> tuple[list[tuple[str, Path, Path]], dict[str, str]]:
    """Pairs (name, clean file, other file) with equal relative name, and {name: reason} for files left over.

    Two folders are searched to any depth; the suffix may differ (`a/1.wav` and `a/1.flac` belong together) and the
    name of a pair is that of its clean file. Two files are one pair. Raises SemambaError when nothing can be paired.
    """
    for path in (clean, other):
        if not path.exists():
            raise SemambaError(f"{path}: no such file or folder")
    if clean.is_dir() != other.is_dir():
        raise SemambaError(f"{clean} and {other}: give two folders or two files")
    if not clean.is_dir():
        return [(clean.name, clean, other)], {}
    clean_files, other_files = _by_stem(clean), _by_stem(other)
    pairs, unpaired = [], {}
    for stem in sorted(clean_files.keys() | other_files.keys()):
        remaining = list(other_files[stem])
        for path in clean_files[stem]:
            match = _choose(path, remaining, alone=len(clean_files[stem]) == 1)
            if match is None:
                reason = "several files fit" if remaining else f"no file of this name in {other}"
                unpaired[str(path.relative_to(clean))] = reason
            else:
                remaining.remove(match)
                pairs.append((str(path.relative_to(clean)), path, match))
        for path in remaining:
            unpaired.setdefault(str(path.relative_to(other)), f"no clean file left for it in {clean}")
    if not pairs:
        raise SemambaError(f"{clean} and {other}: no two audio files share a relative name")
    return pairs, unpaired


def find_files(source: Path) -> list[tuple[str, Path]]:
    """(relative name, path) of every audio file below a folder, or of one file. Raises SemambaError on none."""
    if not source.exists():
        raise SemambaError(f"{source}: no such file or folder")
    if not source.is_dir():
        return [(source.name, source)]
    found = sorted(path for paths in _by_stem(source).values() for path in paths)
    if not found:
        raise SemambaError(f"{source}: no audio files here")
    return [(str(path.relative_to(source)), path) for path in found]


def _by_stem(folder: Path) -> defaultdict[Path, list[Path]]:
    """Audio files of a folder by relative path without suffix; hidden files are skipped."""
    found: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            found[relative.with_suffix("")].append(path)
    return found


def _choose(path: Path, candidates: list[Path], alone: bool) -> Path | None:
    """The candidate with the same suffix, else the only candidate of the only clean file."""
    for candidate in candidates:
        if candidate.suffix.lower() == path.suffix.lower():
            return candidate
    return candidates[0] if alone and len(candidates) == 1 else None
