"""What was said in each recording, from the files that corpora keep it in.

A transcript belongs to a recording when their names without suffix agree (`1284-1180-0004`, `p226_001`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from semamba.errors import SemambaError

_KEYS = ("path", "file", "filename", "audio_filepath", "id", "utterance")  # of a recording, in tables
_TEXTS = ("text", "transcript", "transcription", "sentence")

Rows = Iterator[tuple[str, str]]


def read_transcripts(source: Path) -> dict[str, str]:
    """{name without suffix: text} of a file, or of all such files below a folder.

    Known: LibriSpeech `*.trans.txt` (a line `NAME WORDS` for each), VCTK (`p226/p226_001.txt`, one file each), and
    tables (CSV, TSV, JSON lines) with a column for the recording and one for the text. Raises SemambaError naming the
    file, with the line where there is one.
    """
    if not source.exists():
        raise SemambaError(f"{source}: no such file or folder of transcripts")
    found: dict[str, str] = {}
    for path in _files(source):
        for name, text in _reader(path)(path):
            key = Path(name.replace("\\", "/")).name
            key = key.rsplit(".", 1)[0] if "." in key else key
            if text.strip() and found.setdefault(key, text.strip()) != text.strip():
                raise SemambaError(f"{path}: '{key}' has two different transcripts; name one file of them")
    if not found:
        raise SemambaError(f"{source}: no transcripts here; known are *.trans.txt, a .txt for each, CSV, TSV, JSONL")
    return found


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    known = (".txt", ".csv", ".tsv", ".jsonl")
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in known and path.is_file())


def _reader(path: Path) -> Callable[[Path], Rows]:
    if path.name.lower().endswith(".trans.txt"):
        return _librispeech
    return {".csv": _table, ".tsv": _table, ".jsonl": _json_lines, ".txt": _single}.get(path.suffix.lower(), _unknown)


def _unknown(path: Path) -> Rows:
    raise SemambaError(f"{path}: transcripts are read from .trans.txt, .txt, .csv, .tsv or .jsonl")


def _librispeech(path: Path) -> Rows:
    for line in _text(path).splitlines():
        name, _, words = line.strip().partition(" ")
        if name:
            yield name, words


def _single(path: Path) -> Rows:
    yield path.name, " ".join(_text(path).split())


def _table(path: Path) -> Rows:
    rows = csv.DictReader(_text(path).splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    names = {name.strip().lower(): name for name in rows.fieldnames or []}
    key, text = (next((names[k] for k in known if k in names), None) for known in (_KEYS, _TEXTS))
    if key is None or text is None:
        what, known = ("recordings", _KEYS) if key is None else ("texts", _TEXTS)
        raise SemambaError(f"{path}: no column of {what} in the first line; it may be named {', '.join(known)}")
    for row in rows:
        yield row[key] or "", row[text] or ""


def _json_lines(path: Path) -> Rows:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SemambaError(f"{path}, line {number}: not JSON ({error})") from None
        key, text = (next((row[k] for k in known if k in row), None) for known in (_KEYS, _TEXTS))
        if not isinstance(key, str) or not isinstance(text, str):
            raise SemambaError(f"{path}, line {number}: lacks one of {', '.join(_KEYS)} or one of {', '.join(_TEXTS)}")
        yield key, text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SemambaError(f"{path}: cannot be read as text ({error})") from None
