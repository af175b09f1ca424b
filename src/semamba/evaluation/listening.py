"""Listening tests made from evaluations: MUSHRA (ITU-R BS.1534-3) and AB preference, as one page without a server.

The page shows no names: stimuli carry random identifiers, and `key.json`, which stays with the experimenter, says
which is which. Listeners save their ratings as CSV and send them back; `ratings` puts them together.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semamba import audio
from semamba.data.filters import low_pass, resample_filter
from semamba.data.mixing import active_rms
from semamba.errors import SemambaError
from semamba.evaluation.page_bundle import PAGE, WEB, page
from semamba.evaluation.report_data import Record
from semamba.evaluation.sets import spread
from semamba.files import write_atomic
from semamba.metrics.report import Estimate, estimate

REFERENCE, ANCHOR = "reference (hidden)", "anchor (3.5 kHz)"
ANCHOR_HZ = 3500.0  # the low anchor of BS.1534-3
LEVEL = 10 ** (-28 / 20)  # RMS of speech in every stimulus, full scale 1
SECONDS = 12.0  # BS.1534-3 advises at most this for one stimulus
TRUSTED, LAPSES = 90, 0.15  # post-screening: a hidden reference below 90 in more than 15% of the trials
COLUMNS = ("listener", "method", "test", "trial", "stimulus", "score")

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """One recording: its clean reference and what is rated, by name."""

    name: str
    rate: int
    reference: Wave
    stimuli: dict[str, Wave]


def make_test(records: Sequence[Record], folder: Path, method: str, trials: int, seed: int, title: str) -> list[str]:
    """Write `index.html` and `key.json` into `folder`; returns the names of the trials.

    `method` is "mushra" or "ab". Raises SemambaError when the results have no sound, or too few systems.
    """
    chosen = _choose(records, trials)
    rng = np.random.default_rng(seed)
    test = _identifier(rng)
    shown, key = [], {}
    for trial in chosen:
        entry, names = _shown(trial, method, rng)
        shown.append(entry)
        key[entry["id"]] = {"trial": trial.name, "stimuli": names}
    folder.mkdir(parents=True, exist_ok=True)
    data = {"title": title, "method": method, "test": test, "columns": COLUMNS, "trials": shown}
    text = page(PAGE / "listening.html", (WEB / "theme.css", PAGE / "listening.css"),
                (PAGE / "dom.js", PAGE / "listening.js"), title, data)  # fmt: skip
    write_atomic(folder / "index.html", lambda path: path.write_text(text, encoding="utf-8"))
    content = json.dumps({"test": test, "method": method, "trials": key}, indent=1) + "\n"
    write_atomic(folder / "key.json", lambda path: path.write_text(content, encoding="utf-8"))
    return [trial.name for trial in chosen]


def _choose(records: Sequence[Record], count: int) -> list[Trial]:
    """Recordings of which clean, and two systems at least, can be heard; evenly over all sets."""
    offered = [
        (record, file)
        for record in records
        for file, paths in record.content.get("audio", {}).items()
        if "clean" in paths and len(paths) >= 3
    ]
    if not offered:
        raise SemambaError(
            "the results have no recordings to listen to with a clean one and two systems beside it; make them with "
            "semamba benchmark --keep N"
        )
    return [_read(record, file) for record, file in spread(offered, count)]


def _read(record: Record, file: str) -> Trial:
    waves: dict[str, Wave] = {}
    rates = set()
    for label, path in record.content["audio"][file].items():
        wave, rate = audio.read(record.folder / path)
        waves[label] = wave[0, : round(SECONDS * rate)]
        rates.add(rate)
    if len(rates) > 1:
        raise SemambaError(f"{record.name}: {file}: versions have different sample rates")
    size = min(len(wave) for wave in waves.values())
    waves = {label: wave[:size] for label, wave in waves.items()}
    return Trial(f"{record.name}: {file}", rates.pop(), waves.pop("clean"), waves)


def _shown(trial: Trial, method: str, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, str]]:
    """What the page gets of a trial, and the key: identifier -> system."""
    stimuli = dict(trial.stimuli)
    if method == "mushra":
        anchor = resample_filter(trial.reference, len(trial.reference),
                                 low_pass(len(trial.reference), trial.rate, ANCHOR_HZ))  # fmt: skip
        stimuli |= {REFERENCE: trial.reference, ANCHOR: anchor}
    names = {_identifier(rng): label for label in stimuli}
    waves = matched({"": trial.reference} | {key: stimuli[label] for key, label in names.items()}, trial.rate)
    order = [str(key) for key in rng.permutation(list(names))]
    entry: dict[str, Any] = {"id": _identifier(rng), "reference": _encode(waves.pop(""), trial.rate)}
    entry["stimuli"] = {key: _encode(waves[key], trial.rate) for key in order}
    if method == "ab":
        entry["pairs"] = [list(pair) for pair in itertools.combinations(order, 2)]
    return entry, names


def matched(waves: dict[str, Wave], rate: int) -> dict[str, Wave]:
    """Signals with the same RMS where there is speech; all turned down alike if one would clip."""
    scaled = {}
    for key, wave in waves.items():
        level = active_rms(wave, rate)
        scaled[key] = wave * np.float32(LEVEL / level if level > 0 else 1)
    peak = max(float(np.abs(wave).max(initial=0)) for wave in scaled.values())
    return {key: wave * np.float32(min(1.0, 0.99 / max(peak, 1e-9))) for key, wave in scaled.items()}


def _encode(wave: Wave, rate: int) -> str:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def _identifier(rng: np.random.Generator) -> str:
    return rng.bytes(6).hex()


@dataclass(frozen=True)
class Ratings:
    """Put together from all listeners. MUSHRA: system -> mean score of 0 to 100; AB: share of wins."""

    method: str
    systems: dict[str, Estimate]
    listeners: int
    excluded: tuple[str, ...]  # listeners who did not find the hidden reference
    unknown: int  # rows of another test


def ratings(folder: Path, files: Sequence[Path]) -> Ratings:
    """Scores of every system with 95% intervals (Student t) over listeners, each by the mean of its trials.

    A listener who gives the hidden reference less than 90 in more than 15% of the trials is left out (BS.1534-3).
    Raises SemambaError when a file is not one of ratings, or nothing is left.
    """
    try:
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SemambaError(f"{folder / 'key.json'}: cannot be read ({error}); name the folder of the test") from None
    rows, unknown = _rows(files, key)
    by_listener: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for listener, system, score in rows:
        by_listener[listener][system].append(score)
    excluded = [
        name
        for name, found in by_listener.items()
        if found.get(REFERENCE) and np.mean([score < TRUSTED for score in found[REFERENCE]]) > LAPSES
    ]
    kept = [found for name, found in by_listener.items() if name not in excluded]
    if not kept:
        left = f"{unknown} rows of other tests, {len(excluded)} listeners who did not find the hidden reference"
        raise SemambaError(f"no ratings of this test are left ({left})")
    names = dict.fromkeys(system for found in kept for system in found)
    systems = {name: estimate(float(np.mean(found[name])) for found in kept if name in found) for name in names}
    ordered = sorted(systems.items(), key=lambda item: -item[1].mean)
    return Ratings(key["method"], dict(ordered), len(kept), tuple(sorted(excluded)), unknown)


def _rows(files: Sequence[Path], key: dict[str, Any]) -> tuple[list[tuple[str, str, float]], int]:
    """(listener, system, score) of each rating, and how many belong to another test."""
    rows, unknown = [], 0
    for path in files:
        try:
            table = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise SemambaError(f"{path}: cannot be read ({error})") from None
        for number, row in enumerate(table, 2):
            if missing := set(COLUMNS) - row.keys():
                raise SemambaError(f"{path}: not a file of ratings; it lacks the column '{min(missing)}'")
            system = key["trials"].get(row["trial"], {}).get("stimuli", {}).get(row["stimulus"])
            if row["test"] != key["test"] or system is None:
                unknown += 1
                continue
            try:
                score = float(row["score"])
            except (TypeError, ValueError):
                score = math.nan
            if not 0 <= score <= 100:
                raise SemambaError(f"{path}, line {number}: score '{row['score']}' is not a number from 0 to 100")
            rows.append((f"{path.name}: {row['listener']}", system, score))
    return rows, unknown
