"""Where a run's numbers go: log.jsonl always, TensorBoard where it is installed, and the terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO


class Tracker:
    """Writes one JSON object a line. A resumed run first drops the lines that lie beyond its step."""

    def __init__(self, path: Path, step: int) -> None:
        self._file = _open_log(path, step)
        self._board = _tensorboard(path.parent / "tensorboard", step)

    def write(self, step: int, kind: str, values: dict[str, float], **more: Any) -> None:
        """Log `values` under `kind` ('train' or 'valid'); what is not finite becomes null."""
        clean = {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **clean, **more}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


class Means:
    """Means of the terms of several steps; a term need not be there in every step."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def add(self, terms: Mapping[str, Any]) -> None:
        """Numbers or tensors of one element; those are not read before `take`, so that a GPU need not be waited for."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


def _open_log(path: Path, step: int) -> TextIO:
    kept = []
    if path.exists() and step:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue  # a line cut by a kill
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by Tracker.close
    file.writelines(kept)
    file.flush()
    return file


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)


class Display:
    """Progress with the time left: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, silent: bool = False) -> None:
        from rich.console import Console

        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=silent)
        self._bar: Any = None
        if self._console.is_terminal and not silent:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = [BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.description}")]
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def progress(self, fraction: float, text: str) -> None:
        if self._bar is None:
            self.say(f"{100 * fraction:5.1f}%  {text}")
        else:
            self._bar.update(self._task, completed=fraction, description=text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def duration(seconds: float) -> str:
    """'1h 05m', '12m 30s'."""
    seconds = int(max(seconds, 0))
    if seconds >= 3600:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m {seconds % 60:02d}s"


def terms(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
