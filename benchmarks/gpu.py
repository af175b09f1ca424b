"""Check and time everything on an NVIDIA GPU; prints one table. Without a GPU it says so in one line and ends.

    python benchmarks/gpu.py [--only ROW ...] [--json FILE] [--seconds-per-row 240] [--dry-run]

Rows: `kernels` against float64; `scan` against its floor and mamba-ssm's kernel; `gan`, a generator and discriminator
step of advanced-mamba against the same network run the usual way, with the time of an epoch; `inference` and `stream`,
plain and as CUDA graphs; `causal`, training steps of causal-small; `mixing` of training pairs; `compiled`.

Each row runs in a process of its own, so that neither an error, a crash nor a hang takes the others with it. FILE gets
one JSON object a line, as results come. `--dry-run` runs the code of every row on the CPU at tiny sizes: its times mean
nothing.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from gpu_table import (
    FAILED,
    WRONG,
    Line,
    Setting,
    Table,
    failure,
    machine,
)  # beside this file, as are the modules below

ROWS = {
    "kernels": "gpu_kernels",
    "scan": "gpu_kernels",
    "gan": "gpu_training",
    "inference": "gpu_inference",
    "causal": "gpu_training",
    "stream": "gpu_inference",
    "mixing": "gpu_training",
    "compiled": "gpu_training",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--json", type=Path, help="append each result here")
    parser.add_argument("--seconds-per-row", type=float, default=240.0, help="a row that takes longer is stopped")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, to see that everything runs")
    parser.add_argument("--here", action="store_true", help="all rows in this process")
    options = parser.parse_args()
    from semamba.ops import gpu

    if not options.dry_run and (why := gpu.why_unavailable()):
        sys.exit(f"nothing measured: {why}")
    chosen = options.only or list(ROWS)
    if options.dry_run or options.here:
        failed = run_here(chosen, Setting(options.dry_run), Table(options.json))
    else:
        print(machine(Setting(False)), flush=True)
        failed = [name for name in chosen if not run_apart(name, options.json, options.seconds_per_row)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def run_here(names: list[str], setting: Setting, table: Table) -> list[str]:
    """The rows that failed."""
    failed = []
    for name in names:
        lines = []
        try:
            row: Callable[[Setting], Iterator[Line]] = getattr(importlib.import_module(ROWS[name]), name)
            for line in row(setting):
                lines.append(line)
                table.add(name, line)
        except Exception as error:  # whatever it is, the other rows are worth having
            traceback.print_exc()
            lines.append(failure(name, error))
            table.add(name, lines[-1])
        if any(line.note.startswith((FAILED, WRONG)) for line in lines):
            failed.append(name)
    return failed


def run_apart(name: str, json: Path | None, seconds: float) -> bool:
    """Whether the row went well in a process of its own."""
    command = [sys.executable, __file__, "--here", "--only", name, *(["--json", str(json)] if json else [])]
    try:
        code = subprocess.run(command, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        Table(json).add(name, Line(name, None, "", f"{FAILED}: took longer than {seconds:g} s"))
        return False
    if code < 0:
        Table(json).add(name, Line(name, None, "", f"{FAILED}: ended by signal {-code}"))
    return code == 0


if __name__ == "__main__":
    main()
