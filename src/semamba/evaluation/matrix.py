"""Models x test sets: every pair enhanced and scored once, results set by set, and one table of all.

A system is "noisy" (the input as it is), "clean" where ratings or words are measured (which need no reference), or a
model by name. Results are kept as they arrive (see `cache`): a run that is stopped goes on where it was, and repeating
one costs the reading of the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from semamba import audio, checkpoint
from semamba.errors import SemambaError
from semamba.evaluation.cache import ScoreCache, digest, measuring_digest, model_digest
from semamba.evaluation.cost import cost
from semamba.evaluation.sets import Item, TestSet, spread
from semamba.inference.enhance import Enhancer, choose_device, load
from semamba.metrics import report
from semamba.metrics.evaluate import Measures, Pair, Scored, evaluate_pairs
from semamba.metrics.wer import Recognition, recognition

NOISY, CLEAN = "noisy", "clean"
MATRIX = "semamba-matrix 1"
Progress = Callable[[str, int, int], None]  # what is under way, done, of how many


@dataclass
class Outcome:
    """What one system did on one set."""

    scored: list[Scored]
    elapsed: dict[str, float] = field(default_factory=dict)  # s of work by file
    seconds: dict[str, float] = field(default_factory=dict)  # s of sound by file


class Benchmark:
    """`run(sets)` gives a record for each set (see `metrics.report.results`) and writes them below `folder`."""

    def __init__(
        self,
        systems: Sequence[str],
        folder: Path,
        measures: Measures | None = None,
        jobs: int = 1,
        device: str | None = None,
        transcripts: Mapping[str, str] | None = None,
        keep: int = 0,
        progress: Progress = lambda *_: None,
    ) -> None:
        """`keep` files of each set are written as FLAC with what every system made of them, for reports to play.

        Raises SemambaError when a model or a library is missing, before anything is measured.
        """
        measures = measures or Measures()
        measures.require_extras()
        blind = [CLEAN] if measures.dnsmos or measures.recogniser else []
        self._models = dict(zip(report.column_names(systems), systems, strict=True))
        self._digests = {label: label for label in (*blind, NOISY)}
        where = str(choose_device(device))  # of times that another device took nothing is known
        self._digests |= {
            label: f"{model_digest(checkpoint.locate(name))} {where}" for label, name in self._models.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.cache = folder, ScoreCache(folder)
        self._measures, self._jobs, self._device = measures, jobs, device
        self._measuring = measuring_digest(measures)
        self._transcripts, self._keep, self._progress = dict(transcripts or {}), keep, progress
        self._loaded: dict[str, Enhancer] = {}
        self._cost = {label: cost(name) for label, name in self._models.items()}

    def run(self, sets: Sequence[TestSet], command: str = "") -> list[dict[str, Any]]:
        names = [test_set.name for test_set in sets]
        if len(set(names)) != len(names):
            raise SemambaError(f"sets {', '.join(names)}: two have the same name")
        records = []
        for test_set in sets:
            record = self._one_set(test_set, command)
            report.write_json(self.folder / f"{_file_name(test_set.name)}.json", record)
            records.append(record)
        report.write_json(self.folder / "matrix.json", {"format": MATRIX, "sets": [matrix_entry(r) for r in records]})
        return records

    def _one_set(self, test_set: TestSet, command: str) -> dict[str, Any]:
        outcomes = {label: self._one_system(label, test_set) for label in self._digests}
        absent = [Scored(name, problems={"file": reason}) for name, reason in test_set.left_out.items()]
        systems = {label: [*outcome.scored, *absent] for label, outcome in outcomes.items()}
        record = report.results(
            test_set.name,
            systems,
            {"command": command, "measures": vars(self._measures), "device": self._device or "auto"},
            self._words(test_set, systems),
            self._keep_audio(test_set),
        )
        record["factors"] = {item.name: item.factors for item in test_set.items if item.factors}
        for label, outcome in outcomes.items():
            record["systems"][label]["elapsed"] = outcome.elapsed
        record["seconds"] = outcomes[NOISY].seconds
        record["cost"] = self._cost
        return record

    def _one_system(self, label: str, test_set: TestSet) -> Outcome:
        """Scores of every item in order; what the cache knows is not computed."""
        outcome, found, keys = Outcome([]), dict[str, Scored](), dict[str, str]()
        count = len(test_set.items)

        def missing() -> Iterator[Pair]:
            for item in test_set.items:
                try:
                    clean, noisy, rate = item.load()
                except SemambaError as error:
                    found[item.name] = Scored(item.name, problems={"file": str(error)})
                    continue
                outcome.seconds[item.name] = len(noisy) / rate
                key = digest(self._digests[label], self._measuring, clean, noisy, rate)
                known = self.cache.get(key, item.name)
                if known is not None:
                    found[item.name], outcome.elapsed[item.name] = known
                    continue
                keys[item.name] = key
                better, outcome.elapsed[item.name] = self._enhance(label, clean, noisy, rate)
                yield Pair(item.name, None if label == CLEAN else (clean, rate), (better, rate))

        def store(scored: Scored) -> None:
            found[scored.name] = scored
            self.cache.put(keys[scored.name], scored, outcome.elapsed[scored.name])
            self._progress(f"{test_set.name}: {label}", len(found), count)

        self._progress(f"{test_set.name}: {label}", 0, count)
        measures = replace(self._measures, intrusive=label != CLEAN)
        evaluate_pairs(missing(), self._jobs, on_result=store, measures=measures)
        outcome.scored = [found[item.name] for item in test_set.items]
        return outcome

    def _enhance(self, label: str, clean: np.ndarray, noisy: np.ndarray, rate: int) -> tuple[np.ndarray, float]:
        if label in (CLEAN, NOISY):
            return clean if label == CLEAN else noisy, 0.0
        if label not in self._loaded:
            self._loaded[label] = load(self._models[label], self._device)
            self._loaded[label](np.zeros(rate, np.float32), rate)  # what is slow once is not timed
        start = time.perf_counter()
        better = self._loaded[label](noisy, rate)
        return better, time.perf_counter() - start

    def _words(self, test_set: TestSet, systems: Mapping[str, Sequence[Scored]]) -> dict[str, Recognition]:
        if not self._measures.recogniser:
            return {}
        said = {
            item.name: item.text
            for item in test_set.items
            if item.text and Path(item.name).stem not in self._transcripts
        }
        return {label: recognition(scored, self._transcripts | said) for label, scored in systems.items()}

    def _keep_audio(self, test_set: TestSet) -> dict[str, dict[str, str]]:
        kept = {}
        for item in spread(test_set.items, self._keep):
            try:
                clean, noisy, rate = item.load()
            except SemambaError:
                continue
            waves = {CLEAN: clean} | {label: self._enhance(label, clean, noisy, rate)[0] for label in self._digests}
            kept[item.name] = {label: self._write(test_set, item, label, wave, rate) for label, wave in waves.items()}
        return kept

    def _write(self, test_set: TestSet, item: Item, label: str, wave: np.ndarray, rate: int) -> str:
        path = self.folder / "audio" / _file_name(test_set.name) / _file_name(item.name) / f"{_file_name(label)}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, np.asarray(wave, np.float32)[None], rate)
        return str(path.relative_to(self.folder))


def matrix_entry(record: dict[str, Any]) -> dict[str, Any]:
    """A set's part of the matrix: means, intervals and counts of every system, its speed where that was measured."""
    entry: dict[str, Any] = {"set": record["set"], "systems": {}}
    for label, found in record["systems"].items():
        part = {key: found[key] for key in ("mean", "interval", "count")}
        part["left_out"] = len(found["left_out"])
        if "words" in found:
            part["wer"], part["wer_interval"] = found["words"]["wer"], found["words"]["wer_interval"]
        worked = {name: found["elapsed"][name] for name in found["elapsed"] if name in record["seconds"]}
        if label not in (CLEAN, NOISY) and worked:
            part["real_time_factor"] = sum(worked.values()) / sum(record["seconds"][name] for name in worked)
        entry["systems"][label] = part
    return entry


def table(records: Sequence[Mapping[str, Any]], metric: str) -> list[list[str]]:
    """Rows of a table, heading first: systems down, sets across; `metric` is a measure, "wer" or "real_time_factor"."""
    entries = [matrix_entry(dict(record)) for record in records]
    labels = list(dict.fromkeys(label for entry in entries for label in entry["systems"]))
    rows = [["system", *(entry["set"] for entry in entries)]]
    rows += [[label, *(_cell(entry["systems"].get(label, {}), metric) for entry in entries)] for label in labels]
    return rows


def _cell(part: Mapping[str, Any], metric: str) -> str:
    if metric == "real_time_factor":
        return f"{part[metric]:.4f}" if metric in part else ""
    if metric == "wer":
        low_high = part.get("wer_interval")
        half = f" ± {50 * (low_high[1] - low_high[0]):.1f}" if low_high else ""
        return f"{100 * part['wer']:.1f}%{half}" if part.get("wer") is not None else ""
    mean = part.get("mean", {}).get(metric)
    if mean is None:
        return ""
    interval = part["interval"][metric]
    half_width = (interval[1] - interval[0]) / 2 if interval else float("nan")
    return report.Estimate(mean, half_width, part["count"][metric]).text(metric)


def _file_name(text: str) -> str:
    """A name that every file system takes."""
    return "".join(letter if letter.isalnum() or letter in "-_.=" else "_" for letter in text).strip(".") or "_"
