"""From records of evaluations (`semamba evaluate --json`, `semamba benchmark`) to the data of one report."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semamba import audio
from semamba.errors import SemambaError
from semamba.evaluation.sets import spread
from semamba.metrics import report
from semamba.metrics.evaluate import Scored

PUBLISHED = Path(__file__).parent / "page" / "published.json"
CLIP_SECONDS = 15.0  # longer recordings are cut: a report is for listening to differences
WORSE = 0.1  # share of a measure's spread over files; smaller losses of one file are not listed


@dataclass(frozen=True)
class Record:
    """One evaluated set, and the folder that its relative audio paths start from."""

    content: dict[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return str(self.content["set"])


def read_records(sources: Sequence[Path]) -> list[Record]:
    """All records of files and folders; records of one set become one, with the systems of all.

    Raises SemambaError when a file is no record, or two runs disagree on a system of one set.
    """
    found: dict[str, Record] = {}
    for source in sources:
        for path, content in _contents(source):
            record = Record(content, path.parent)
            known = found.get(record.name)
            found[record.name] = record if known is None else _merge(known, record, path)
    if not found:
        raise SemambaError(f"{', '.join(map(str, sources))}: no results here; make some with semamba evaluate --json")
    return list(found.values())


def _contents(source: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if not source.exists():
        raise SemambaError(f"{source}: no such file or folder of results")
    # In the order in which they were made, which is that of the command: numbers in names sort badly.
    paths = sorted(source.glob("*.json"), key=lambda path: path.stat().st_mtime_ns) if source.is_dir() else [source]
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SemambaError(f"{path}: cannot be read as JSON ({error})") from None
        if isinstance(content, dict) and content.get("format") == report.FORMAT:
            yield path, content
        elif not source.is_dir():
            raise SemambaError(f"{path}: not results of semamba evaluate --json or semamba benchmark")


def _merge(first: Record, second: Record, path: Path) -> Record:
    systems = dict(first.content["systems"])
    for label, found in second.content["systems"].items():
        if label in systems and systems[label]["files"] != found["files"]:
            raise SemambaError(
                f"{path}: '{label}' on set '{first.name}' differs from the run before; to compare two runs, give the "
                "older one with --against"
            )
        systems[label] = found
    paths = {
        file: _absolute(first, file) | _absolute(second, file)
        for file in first.content.get("audio", {}).keys() | second.content.get("audio", {}).keys()
    }
    cost = first.content.get("cost", {}) | second.content.get("cost", {})
    return Record(first.content | {"systems": systems, "audio": paths, "cost": cost}, first.folder)


def _absolute(record: Record, file: str) -> dict[str, str]:
    found = record.content.get("audio", {}).get(file, {})
    return {label: str((record.folder / path).absolute()) for label, path in found.items()}


def build(records: Sequence[Record], title: str, clips: int, against: Sequence[Record] = ()) -> dict[str, Any]:
    """The JSON-able data of a report; at most `clips` files of all sets are embedded as sound."""
    encoded: list[str] = []
    shares = _shares(records, clips)
    sets = [_set(record, shares[record.name], encoded) for record in records]
    keys = [key for key in report.LABELS if any(key in part["mean"] for s in sets for part in s["systems"].values())]
    metrics = [{"key": k, "label": report.LABELS[k], "decimals": report.DECIMALS.get(k, 3), "better": 1} for k in keys]
    if any("words" in part for s in sets for part in s["systems"].values()):
        metrics.append({"key": "wer", "label": "WER [%]", "decimals": 1, "better": -1})
    cost: dict[str, Any] = {}
    for record in records:
        cost |= record.content.get("cost", {})
    return {
        "title": title,
        "metrics": metrics,
        "sets": sets,
        "cost": cost,
        "clips": encoded,
        "published": json.loads(PUBLISHED.read_text(encoding="utf-8")),
        "changes": compare(against, records) if against else None,
    }


def _set(record: Record, clips: int, encoded: list[str]) -> dict[str, Any]:
    content = record.content
    systems = {}
    for label, found in content["systems"].items():
        part = {key: found[key] for key in ("mean", "interval", "count", "files", "left_out")}
        if "words" in found:
            part["words"] = {
                name: [file["words"][k] for k in ("substitutions", "deletions", "insertions", "length")]
                for name, file in found["words"]["files"].items()
            }
        worked = found.get("elapsed", {})
        seconds = sum(content.get("seconds", {}).get(name, 0.0) for name in worked)
        if seconds and sum(worked.values()):
            part["realTimeFactor"] = sum(worked.values()) / seconds
        systems[label] = part
    return {
        "name": record.name,
        "systems": systems,
        "factors": content.get("factors", {}),
        "settings": content.get("settings", {}),
        "versions": content.get("versions", {}),
        "audio": _clips(record, clips, encoded),
    }


def _shares(records: Sequence[Record], clips: int) -> dict[str, int]:
    """How many files of each set are embedded: in turn, until `clips` are used up or nothing is left."""
    shares = {record.name: 0 for record in records}
    offers = {record.name: len(record.content.get("audio", {})) for record in records}
    while clips > 0 and any(shares[name] < offers[name] for name in shares):
        for name in shares:
            if clips > 0 and shares[name] < offers[name]:
                shares[name], clips = shares[name] + 1, clips - 1
    return shares


def _clips(record: Record, count: int, encoded: list[str]) -> dict[str, dict[str, int]]:
    """{file: {label: number of the clip}}; a file that is not there any more is left out."""
    clips: dict[str, dict[str, int]] = {}
    for file in spread(sorted(record.content.get("audio", {})), count):
        paths = {label: Path(path) for label, path in _absolute(record, file).items()}
        found = {label: path for label, path in paths.items() if path.is_file()}
        if len(found) < 2:
            continue
        clips[file] = {}
        for label, path in found.items():
            clips[file][label] = len(encoded)
            encoded.append(_encode(path))
    return clips


def _encode(path: Path) -> str:
    """The first channel's first seconds as 16-bit FLAC, which every browser plays, in base64."""
    import io

    import soundfile

    wave, rate = audio.read(path)
    buffer = io.BytesIO()
    clip = np.clip(wave[0, : round(CLIP_SECONDS * rate)], -1, 1)
    soundfile.write(buffer, clip, rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def compare(before: Sequence[Record], after: Sequence[Record]) -> dict[str, Any]:
    """What changed from one run to another: paired changes of means, and the files that lost most.

    {"means": [{set, system, metric, before, after, change, half_width, count, verdict}], "files": [{set, system, file,
    metric, before, after}], "missing": [..]}. A verdict is "worse" or "better" where the 95% interval of the paired
    change leaves out zero, else "same".
    """
    old = {record.name: record.content["systems"] for record in before}
    means: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    missing = [f"set {name}" for name in old.keys() - {record.name for record in after}]
    for record in after:
        for label, found in record.content["systems"].items():
            earlier = old.get(record.name, {}).get(label)
            if earlier is None:
                missing.append(f"{label} on {record.name} (new)")
                continue
            for metric in found["mean"]:
                change = _change(earlier["files"], found["files"], metric)
                if change is None:
                    continue
                common = {"set": record.name, "system": label, "metric": metric}
                means.append(common | change)
                files += [common | row for row in _losses(earlier["files"], found["files"], metric)]
        gone = old.get(record.name, {}).keys() - record.content["systems"].keys()
        missing += [f"{label} on {record.name}" for label in sorted(gone)]
    files.sort(key=lambda row: -row["loss"])
    return {"means": means, "files": files[:30], "missing": missing}


Files = Mapping[str, Mapping[str, float]]


def _change(before: Files, after: Files, metric: str) -> dict[str, Any] | None:
    names = [n for n in after if metric in after[n] and metric in before.get(n, {})]
    if not names:
        return None
    sides = [[Scored(n, dict(side[n])) for n in names] for side in (before, after)]
    found = report.changes(*sides)[metric]
    clear = math.isfinite(found.half_width) and abs(found.mean) > found.half_width
    return {
        "before": float(np.mean([before[n][metric] for n in names])),
        "after": float(np.mean([after[n][metric] for n in names])),
        "change": found.mean,
        "half_width": found.half_width if math.isfinite(found.half_width) else None,
        "count": found.count,
        "verdict": ("better" if found.mean > 0 else "worse") if clear else "same",
    }


def _losses(before: Files, after: Files, metric: str) -> list[dict[str, Any]]:
    names = [n for n in after if metric in after[n] and metric in before.get(n, {})]
    spread = float(np.std([before[n][metric] for n in names])) if len(names) > 1 else 0.0
    rows = []
    for name in names:
        lost = before[name][metric] - after[name][metric]
        if lost > max(WORSE * spread, 1e-9) and spread:
            rows.append({"file": name, "before": before[name][metric], "after": after[name][metric],
                         "loss": lost / spread})  # fmt: skip
    return rows
