"""Test sets: recorded pairs from folders and manifests. Each item is read when it is needed.

Letters: n samples of one channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from semamba import audio
from semamba.data.manifest import Entry, Manifest
from semamba.errors import SemambaError
from semamba.metrics.pairs import find_pairs

T = TypeVar("T")
Wave = NDArray[np.float32]
Recording = tuple[Wave, Wave, int]  # clean (n,), noisy (n,), rate in Hz


@dataclass(frozen=True)
class Item:
    """One pair. `name` is unique in its set and ends in the name of the utterance; `factors` say how it was made."""

    name: str
    load: Callable[[], Recording]  # raises SemambaError when it cannot be read
    factors: dict[str, float | str] = field(default_factory=dict)
    text: str = ""  # what is said, where a manifest tells


@dataclass(frozen=True)
class TestSet:
    """Pairs that are averaged together, and what was left over without a partner."""

    __test__ = False  # not a test of pytest's

    name: str
    items: tuple[Item, ...]
    left_out: dict[str, str] = field(default_factory=dict)


def open_set(specification: str, limit: int | None = None) -> TestSet:
    """The set of `NAME=PATH`, where PATH is a folder with `clean` and `noisy` in it, or `MANIFEST.csv[@SPLIT]`.

    Raises SemambaError when nothing can be paired.
    """
    name, separator, place = specification.partition("=")
    if not separator or not name.strip() or not place:
        raise SemambaError(f"set '{specification}': write NAME=FOLDER or NAME=MANIFEST.csv@SPLIT")
    path, _, split = place.partition("@")
    chosen = _manifest_set(name, Path(path), split) if path.lower().endswith(".csv") else _folder_set(name, Path(place))
    if limit is None:
        return chosen
    return TestSet(name, chosen.items[:limit])  # of a part of a set nothing is missing


def open_material(place: str, kind: str) -> tuple[Entry, ...]:
    """Recordings to mix: those of a folder, or the rows of `kind` in `MANIFEST.csv[@SPLIT]`."""
    path, _, split = place.partition("@")
    if path.lower().endswith(".csv"):
        rows = Manifest.read(path).select(split, kind).entries
        if not rows:
            raise SemambaError(f"{place}: the manifest has no rows of kind '{kind}' there")
        return rows
    key = "clean" if kind == "speech" else kind
    return Manifest.from_folders(**{key: place}).select(kind=kind).entries


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, evenly over all."""
    if count <= 0 or not items:
        return []
    chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[index] for index in chosen]


def read_pair(clean: Path, noisy: Path) -> Recording:
    """A recorded pair at its own rate. Raises SemambaError naming the file when it is not two equal mono signals."""
    (first, rate), (second, other) = audio.read(clean), audio.read(noisy)
    if rate != other:
        raise SemambaError(f"{noisy}: has {other} Hz, its clean partner {rate} Hz")
    if first.shape != second.shape or len(first) != 1:
        raise SemambaError(f"{noisy}: {second.shape} (channels, samples), but its clean partner {first.shape}")
    return first[0], second[0], rate


def _folder_set(name: str, folder: Path) -> TestSet:
    for part in ("clean", "noisy"):
        if not (folder / part).is_dir():
            raise SemambaError(f"set '{name}': {folder} has no folder '{part}'; it needs clean/ and noisy/")
    files, unpaired = find_pairs(folder / "clean", folder / "noisy")
    items = tuple(Item(file, partial(read_pair, clean, noisy)) for file, clean, noisy in files)
    return TestSet(name, items, unpaired)


def _manifest_set(name: str, path: Path, split: str) -> TestSet:
    pairs = Manifest.read(path).pairs(split)
    if not pairs:
        raise SemambaError(f"set '{name}': {path} has no recorded pairs" + (f" in '{split}'" if split else ""))
    items = [
        Item(noisy.name, partial(read_pair, clean.path, noisy.path), text=clean.text or noisy.text)
        for clean, noisy in pairs
    ]
    return TestSet(name, tuple(items))
