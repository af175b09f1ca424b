"""Training on shards that do not fit into memory: one bank after another, the next one made while this one is used.

A window is as many shards as fit. The windows of a pass are a random partition of all shards, and each is used for as
many steps as its speech has crops. Which window a step belongs to, and what it draws there, depends on the seed alone,
so a resumed run goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from semamba.data.bank import SpeechBank, read_files
from semamba.data.manifest import Entry, Manifest
from semamba.data.shards import read_shard
from semamba.errors import SemambaError
from semamba.processes import follow_parent

BatchT = TypeVar("BatchT")
Mix = Callable[
    [SpeechBank, int], Callable[[int, int], Iterator[BatchT]]
]  # bank, window -> first step, steps -> batches


class Windows:
    """The split of a sharded manifest as a sequence of banks.

    steps: how many steps each window serves, the same for all. count: windows in one pass over the shards.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        seconds_per_step: float,
        memory_mb: float = 2048,
        seed: int = 0,
        sample_rate: int = 16000,
    ) -> None:
        """`memory_mb` is for the samples of one window; a second one lies on disk. Raises SemambaError when a row does
        not say its seconds, on which the plan rests."""
        self.seed, self.sample_rate = seed, sample_rate
        self.shards: dict[Path, list[Entry]] = {}
        self.always: list[Entry] = []  # files outside the shards belong to every window
        for entry in manifest.select(split):
            if entry.shard is None:
                self.always.append(entry)
            else:
                self.shards.setdefault(entry.shard, []).append(entry)
        rows = [entry for entries in self.shards.values() for entry in entries]
        if any(entry.seconds <= 0 for entry in rows):
            raise SemambaError(
                f"{manifest.origin}: rows of shards need their seconds; make them with semamba data shard"
            )
        total = 2 * sample_rate * sum(entry.seconds for entry in rows)
        resident = 2 * sample_rate * sum(entry.seconds for entry in self.always)
        room = max(memory_mb * 2**20 - resident, 0)
        self.size = min(max(int(room / (total / len(self.shards))), 1), len(self.shards))
        self.count = -(-len(self.shards) // self.size)
        voices = sum(entry.seconds for entry in rows if entry.kind in ("speech", "paired_clean"))
        self.steps = max(round(voices / self.count / seconds_per_step), 1)

    def chosen(self, window: int) -> list[Path]:
        """The shards of a window, of any pass."""
        number, place = divmod(window, self.count)
        names = sorted(self.shards)
        order = np.random.default_rng([self.seed, 11, number]).permutation(len(names))
        # equal parts as far as possible: a last window of one shard would be used as long as one of many
        bounds = [round(part * len(names) / self.count) for part in (place, place + 1)]
        return [names[int(index)] for index in order[slice(*bounds)]]

    def batches(self, mix: Mix[BatchT], start: int = 0, cache: Path | None = None) -> Iterator[BatchT]:
        """Batches from step `start` on, without end; `cache` is where the windows' banks are written."""
        folder = Path(tempfile.mkdtemp(prefix="windows-", dir=_made(cache)))
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, context, initializer=follow_parent)
        said: set[str] = set()
        try:
            window, offset = divmod(start, self.steps)
            coming = self._order(pool, window, folder)
            bank = None
            while True:
                bank = _take(coming, said, bank)
                coming = self._order(pool, window + 1, folder)
                yield from mix(bank, window)(offset, self.steps - offset)
                for path in folder.glob(f"{window}.*"):
                    with contextlib.suppress(OSError):  # Windows keeps files that are mapped
                        path.unlink()
                window, offset = window + 1, 0
        finally:
            pool.shutdown(cancel_futures=True)  # waits: a window under way would be written after the removal
            shutil.rmtree(folder, ignore_errors=True)

    def _order(self, pool: ProcessPoolExecutor, window: int, folder: Path) -> Future[tuple[Path, list[str]]]:
        entries = {path: self.shards[path] for path in self.chosen(window)}
        return pool.submit(build_window, entries, self.always, self.sample_rate, folder / str(window))


def build_window(
    shards: dict[Path, list[Entry]], always: list[Entry], sample_rate: int, stem: Path
) -> tuple[Path, list[str]]:
    """Decode a window into a bank at `stem`; returns it with the warnings on the way. Runs in a process of its own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        packed = (read_shard(path, entries, sample_rate) for path, entries in shards.items())
        bank = SpeechBank.build(chain(chain.from_iterable(packed), read_files(always, sample_rate)), sample_rate)
        bank.save(stem)
    return stem, [str(item.message) for item in caught]


def _take(coming: Future[tuple[Path, list[str]]], said: set[str], previous: SpeechBank | None) -> SpeechBank:
    """The bank that was ordered; the previous one again where damage has left nothing of it."""
    try:
        stem, lines = coming.result()
    except BrokenProcessPool:
        raise SemambaError("the process that reads shards died (out of memory?); lower train.window_mb") from None
    for line in lines:
        if line not in said:
            said.add(line)
            warnings.warn(line, stacklevel=2)
    bank = SpeechBank.open(stem)
    if bank.voices or bank.pairs:
        return bank
    if previous is None:
        raise SemambaError("the first window of shards holds no readable speech or pairs; are the shards all there?")
    return previous


def _made(cache: Path | None) -> Path | None:
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    return cache
