"""Lists of audio files: a CSV manifest, or folders, become rows that the rest of the room selects from."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semamba.errors import SemambaError
from semamba.files import write_atomic

PAIRED = ("paired_clean", "paired_noisy")
KINDS = ("speech", "noise", "rir", *PAIRED)
COLUMNS = ("path", "split", "kind")  # required
OPTIONAL = ("source", "licence", "seconds", "speaker", "text")
EXTENSIONS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})


@dataclass(frozen=True)
class Entry:
    """One file. `seconds` is 0 when the manifest does not say; `speaker` groups files of one voice."""

    path: Path
    split: str
    kind: str
    speaker: str = ""
    seconds: float = 0.0
    text: str = ""
    source: str = ""
    licence: str = ""
    name: str = ""  # the path as the manifest writes it

    @property
    def shard(self) -> Path | None:
        """The archive that the path leads into, where it does."""
        archive = self.path.parent.parent
        return archive if archive.suffix == ".tar" else None

    @property
    def pair_key(self) -> tuple[str, str, str]:
        """Equal for the two sides of a pair: clean/ and noisy/ are sister folders, the set is what lies above them."""
        return (self.split, str(self.path.parent.parent), self.path.stem)


@dataclass(frozen=True)
class Manifest:
    """Rows of a corpus, in the order of the file."""

    entries: tuple[Entry, ...]
    origin: str = ""  # what to name in an error

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read a CSV whose `path` column is relative to the CSV's folder.

        Raises SemambaError naming the file, and the line where there is one, when it is missing, lacks
        a required column or holds a bad row.
        """
        path = Path(path)
        try:
            with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
                reader = csv.DictReader(stream)
                missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
                if missing:
                    raise SemambaError(
                        f"{path}: column '{missing[0]}' is missing; needed are {', '.join(COLUMNS)} in the first line"
                    )
                entries = tuple(_entry(row, path, reader.line_num) for row in reader)
        except FileNotFoundError:
            raise SemambaError(f"{path}: no such manifest") from None
        except (OSError, csv.Error) as error:
            raise SemambaError(f"{path}: cannot be read as a CSV manifest ({error})") from None
        if not entries:
            raise SemambaError(f"{path}: the manifest has no rows")
        return cls(entries, str(path))

    @classmethod
    def from_folders(
        cls,
        clean: str | Path | None = None,
        noise: str | Path | None = None,
        rir: str | Path | None = None,
        split: str = "train",
    ) -> Manifest:
        """All audio files below the folders given; a speaker is the name of the folder a file lies in."""
        entries: list[Entry] = []
        for kind, folder in (("speech", clean), ("noise", noise), ("rir", rir)):
            if folder is None:
                continue
            files = audio_files(folder)
            for file in files:
                speaker = file.parent.name if kind == "speech" else ""
                entries.append(Entry(file, split, kind, speaker, name=file.name))
        if not entries:
            raise SemambaError("no folder of clean speech, noise or rooms was given")
        return cls(tuple(entries), "folders")

    def write(self, path: str | Path) -> None:
        """Write a CSV that `read` takes, with paths relative to its folder; complete or not at all."""
        path = Path(path)

        def fill(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
                rows = csv.writer(stream, lineterminator="\n")
                rows.writerow((*COLUMNS, *OPTIONAL))
                rows.writerows(_row(entry, path.parent) for entry in self.entries)

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, fill)
        except OSError as error:
            raise SemambaError(f"{path}: the manifest cannot be written ({error.strerror or error})") from None

    def select(self, split_prefix: str = "", kind: str | None = None) -> Manifest:
        """The rows of a split, or of a folder as paths are written; of `kind` only, if given; "" is all rows.

        So `valid` is a split and `valid/paired` the rows of it that lie in that folder: a folder that begins with the
        name of a split holds rows of this split only.
        """
        if kind is not None and kind not in KINDS:
            raise SemambaError(f"unknown kind '{kind}'; known kinds: {', '.join(KINDS)}")
        folder = split_prefix.rstrip("/") + "/"
        first = folder.split("/")[0]
        foreign = first in {entry.split for entry in self.entries}

        def chosen(entry: Entry) -> bool:
            if folder == "/" or f"{entry.split}/".startswith(folder):
                return True
            return entry.name.startswith(folder) and not (foreign and entry.split != first)

        rows = (entry for entry in self.entries if chosen(entry))
        return Manifest(tuple(entry for entry in rows if kind is None or entry.kind == kind), self.origin)

    def pairs(self, split_prefix: str = "") -> list[tuple[Entry, Entry]]:
        """(clean, noisy) rows that share split, set and file name; raises SemambaError on a file without partner."""
        pairs, alone = self.partners(split_prefix)
        if alone:
            raise SemambaError(f"{self.origin}: {alone[0].path} ({alone[0].kind}) has no partner of the same name")
        return pairs

    def partners(self, split_prefix: str = "") -> tuple[list[tuple[Entry, Entry]], list[Entry]]:
        """The same pairs, and the rows without partner."""
        clean = {entry.pair_key: entry for entry in self.select(split_prefix, "paired_clean")}
        noisy = {entry.pair_key: entry for entry in self.select(split_prefix, "paired_noisy")}
        alone = [clean.get(key) or noisy[key] for key in sorted(clean.keys() ^ noisy.keys())]
        return [(clean[key], noisy[key]) for key in sorted(clean.keys() & noisy.keys())], alone


def audio_files(folder: str | Path) -> list[Path]:
    """Audio files below a folder, sorted. Raises SemambaError when it is no folder or holds none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SemambaError(f"{folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not files:
        raise SemambaError(f"{folder}: no audio files ({', '.join(sorted(EXTENSIONS))}) in this folder")
    return files


def _row(entry: Entry, folder: Path) -> tuple[str, ...]:
    place = Path(os.path.relpath(entry.path, folder)).as_posix()
    return (
        *(place, entry.split, entry.kind, entry.source, entry.licence),
        *(f"{entry.seconds:.3f}", entry.speaker, entry.text),
    )


def _entry(row: dict[str, str], path: Path, line: int) -> Entry:
    name, kind = (row["path"] or "").strip(), (row["kind"] or "").strip()
    if not name:
        raise SemambaError(f"{path}, line {line}: the path is empty")
    if kind not in KINDS:
        raise SemambaError(f"{path}, line {line}: unknown kind '{kind}'; known kinds: {', '.join(KINDS)}")
    seconds = (row.get("seconds") or "0").strip()
    try:
        duration = float(seconds)
    except ValueError:
        raise SemambaError(f"{path}, line {line}: seconds is '{seconds}', not a number") from None
    text = {key: (row.get(key) or "").strip() for key in ("speaker", "text", "source", "licence")}
    return Entry(path.parent / name, (row["split"] or "").strip(), kind, seconds=duration, name=name, **text)
