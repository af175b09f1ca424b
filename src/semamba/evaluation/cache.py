"""Scores kept by content: what was measured once, on the same samples by the same system, is not measured again."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from semamba import __version__
from semamba.errors import SemambaError
from semamba.metrics.evaluate import Measures, Scored
from semamba.metrics.report import versions

FILE = "scores.jsonl"
# A new version of one of these may score differently; the others only carry the samples.
_MEASURING = ("pesq", "pystoi", "jiwer", "speechmos")


def digest(*parts: Any) -> str:
    """SHA-256 of arrays (their samples and type), bytes and JSON-able values."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).data)
        else:
            total.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()


def measuring_digest(measures: Measures) -> str:
    """What scores depend on beside samples and system: the measures, and versions of what measures."""
    found = versions()
    return digest(asdict(measures), {name: found.get(name) for name in _MEASURING})


def model_digest(folder: Path) -> str:
    """A model by its weights, its config and the version of this package."""
    files = [folder / name for name in ("config.json", "model.safetensors")]
    return digest(__version__, *(path.read_bytes() for path in files))


class ScoreCache:
    """A file of JSON lines that only grows. A line that a crash cut short is ignored, the last line of a key counts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._found: dict[str, dict[str, Any]] = {}
        self.hits = 0
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise SemambaError(f"{self._path}: cannot be read ({error.strerror})") from None
        for line in content.splitlines():
            try:
                row = json.loads(line)
                self._found[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                continue
        # A new line after half a line, so that the next one is whole.
        self._cut = bool(content) and not content.endswith(b"\n")

    def get(self, key: str, name: str) -> tuple[Scored, float] | None:
        """(scores under `name`, seconds that the system took), or None."""
        row = self._found.get(key)
        if row is None:
            return None
        self.hits += 1
        return Scored(name, row["scores"], row["problems"], row["heard"]), row["elapsed"]

    def put(self, key: str, scored: Scored, elapsed: float) -> None:
        """Append, and flush to disk: a kill loses what was under way, no more."""
        row = {"key": key, "scores": scored.scores, "problems": scored.problems, "heard": scored.heard,
               "elapsed": elapsed}  # fmt: skip
        self._found[key] = row
        text = "\n" * self._cut + json.dumps(row) + "\n"
        self._cut = False
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SemambaError(f"{self._path}: cannot be written ({error.strerror})") from None
