"""Writes the table of models into README.md from what `semamba models --json` counts.

    python benchmarks/model_table.py [--check]

With --check nothing is written; the exit code is 1 when the table is not up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from document import with_section

from semamba.cli import models

README = Path(__file__).resolve().parents[1] / "README.md"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line a model."""
    lines = ["| model | parameters | million MAC per second of audio | latency | weights |", "|---|---:|---:|---:|---|"]
    for row in rows:
        weights = ("shipped, the default" if row["default"] else "shipped") if row["weights"] else "train it yourself"
        latency = f"{row['latency_ms']:.0f} ms" if row["causal"] else "whole signal"
        cost = f"{row['honest_macs_per_second'] / 1e6:,.0f}"
        lines.append(f"| {row['name']} | {row['parameters']:,} | {cost} | {latency} | {weights} |")
    return "\n".join(lines)


def updated(text: str) -> str:
    """The README with a fresh table between its markers."""
    return with_section(text, "models", "model_table", table([models.describe(name) for name in models.names()]))


def main() -> None:
    text = README.read_text(encoding="utf-8")
    fresh = updated(text)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if fresh == text else "README.md: the table of models is not up to date")
    README.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
