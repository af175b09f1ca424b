"""What the rows of benchmarks/gpu.py share: sizes, clocks, lines of the table."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

RATE = 16_000
FAILED = "FAILED"  # how the note of a line begins that has no result
WRONG = "WRONG"  # and of one whose result is not right

T = TypeVar("T")
Run = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One result; `value` None where there is none to give."""

    name: str
    value: float | None
    unit: str = "ms"
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """A dry run has tiny sizes and the CPU."""

    dry: bool

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.dry else "cuda", None if self.dry else 0)

    def size(self, real: T, tiny: T) -> T:
        return tiny if self.dry else real

    def milliseconds(self, run: Run, repeats: int = 20) -> float:
        """Median over single runs, by device events, after three for warming up and tuning."""
        if self.dry:
            return _clock(run)
        for _ in range(3):
            run()
        times = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times)

    def latencies(self, run: Run, repeats: int = 300) -> list[float]:
        """Wall-clock milliseconds of single runs that end with their result on the host, sorted."""
        for _ in range(self.size(20, 3)):
            run()
        return sorted(_clock(run) for _ in range(self.size(repeats, 3)))

    def peak(self, run: Callable[[], T]) -> tuple[T, float]:
        """The result and the most GPU memory it held, in GiB."""
        if self.dry:
            return run(), 0.0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return run(), torch.cuda.max_memory_allocated() / 2**30


def _clock(run: Run) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def attempt(name: str, make: Callable[[], Line]) -> Line:
    """The line, or one that says why there is none: the rest of a row is worth having."""
    try:
        return make()
    except Exception as error:
        return failure(name, error)


def failure(name: str, error: Exception) -> Line:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return Line(name, None, "", f"{FAILED}: {type(error).__name__}: {reason}")


class Table:
    """Lines on the terminal and, where a path is given, appended to a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def add(self, row: str, line: Line) -> None:
        value = "-" if line.value is None else f"{line.value:.4g} {line.unit}".strip()
        print(f"{row:10}{line.name:58}{value:>16}  {line.note}", flush=True)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"row": row, **asdict(line)}) + "\n")


def machine(setting: Setting) -> str:
    if setting.dry:
        return f"dry run, torch {torch.__version__}"
    device = torch.cuda.get_device_properties(0)
    return f"{device.name}, {device.multi_processor_count} multiprocessors, torch {torch.__version__}"
