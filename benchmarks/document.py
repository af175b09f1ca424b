"""The part of a document that a benchmark writes, and its tables; what lies outside the two markers is yours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def table_row(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | " + " | ".join(cells) + " |"


def with_section(document: str, name: str, script: str, text: str) -> str:
    """The document with `text` between the markers of section `name`; without markers it goes to the end."""
    begin, end = f"<!-- {name}: begin (written by benchmarks/{script}.py) -->", f"<!-- {name}: end -->"
    if begin not in document or end not in document:
        document = f"{document.rstrip()}\n\n{begin}\n{end}\n"
    head, rest = document.split(begin, 1)
    return f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def write_section(path: Path, name: str, script: str, text: str) -> None:
    """Put a section into a file, which is made where it is missing."""
    document = path.read_text(encoding="utf-8") if path.exists() else "# Measured results\n"
    path.write_text(with_section(document, name, script, text), encoding="utf-8")
