"""From scored pairs to means with 95% intervals, a JSON document, a CSV file and table cells.

Every measure is averaged over the files for which it is defined, and that number of files is always given.
Intervals are Student-t over files: mean +- t * s / sqrt(n).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from semamba.errors import SemambaError
from semamba.files import write_atomic
from semamba.metrics.evaluate import Scored
from semamba.metrics.wer import Recognition

FORMAT = "semamba-evaluation 1"
INTERVAL = "95%, Student t over files"
LABELS = {"pesq": "PESQ-WB", "csig": "CSIG", "cbak": "CBAK", "covl": "COVL", "segsnr": "SegSNR [dB]", "stoi": "STOI",
          "estoi": "ESTOI", "si_sdr": "SI-SDR [dB]", "dnsmos_sig": "DNSMOS SIG", "dnsmos_bak": "DNSMOS BAK",
          "dnsmos_ovrl": "DNSMOS OVRL", "dnsmos_p808": "DNSMOS P.808"}  # fmt: skip
DECIMALS = {"segsnr": 2, "si_sdr": 2}  # all others: 3

# 97.5% points of Student's t for 1 to 30 degrees of freedom.
_T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
          2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555,
          2.0518, 2.0484, 2.0452, 2.0423)  # fmt: skip


def column_names(models: Sequence[str]) -> list[str]:
    """Short, distinct names of models for columns and folders: the end of each path, as long as is needed to tell it
    from the others (`a/best` and `b/best` become `a-best` and `b-best`).

    Raises SemambaError when a model is given twice or would be taken for the column of the recordings.
    """
    paths = [(Path(model).resolve() if Path(model).is_dir() else Path(model)).parts for model in models]
    names = []
    for own in paths:
        same = [sum(other[-n:] == own[-n:] for other in paths) for n in range(1, len(own) + 1)]
        if 1 not in same:
            raise SemambaError(f"models {', '.join(models)}: two have the same name")
        names.append("-".join(own[-1 - same.index(1) :]))
    if taken := {"clean", "noisy"} & set(names):
        raise SemambaError(f"a model named {taken.pop()}: give its whole path, or rename its folder")
    return names


@dataclass(frozen=True)
class Estimate:
    """Mean over `count` files and half the width of its 95% interval; NaN where it takes more files."""

    mean: float
    half_width: float
    count: int

    def text(self, metric: str, sign: bool = False) -> str:
        """`1.559 ± 0.352`, with as many decimals as the metric deserves."""
        if not self.count:
            return "n/a"
        decimals = DECIMALS.get(metric, 3)
        mean = f"{self.mean:{'+' if sign else ''}.{decimals}f}"
        return f"{mean} ± {self.half_width:.{decimals}f}" if math.isfinite(self.half_width) else mean


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and interval of independent values."""
    array = np.array(list(values), dtype=np.float64)
    if array.size == 0:
        return Estimate(math.nan, math.nan, 0)
    half_width = math.nan
    if array.size > 1:
        half_width = _t_975(array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return Estimate(float(array.mean()), half_width, array.size)


def measured(*systems: Sequence[Scored]) -> tuple[str, ...]:
    """The measures that were asked for, in the order of LABELS: those with a value or a reason in any file."""
    found = {key for scored in systems for s in scored for key in (*s.scores, *s.problems)} - {"file"}
    return tuple(metric for metric in LABELS if metric in found)


def summarise(scored: Sequence[Scored], metrics: Sequence[str] | None = None) -> dict[str, Estimate]:
    """Estimate for each of `metrics` (what was measured), over the files for which it is defined."""
    names = measured(scored) if metrics is None else metrics
    return {metric: estimate(s.scores[metric] for s in scored if metric in s.scores) for metric in names}


def changes(before: Sequence[Scored], after: Sequence[Scored]) -> dict[str, Estimate]:
    """Estimate of after minus before, file by file, over the files for which both are defined."""
    first = {s.name: s.scores for s in before}
    return {
        metric: estimate(
            s.scores[metric] - first[s.name][metric]
            for s in after
            if metric in s.scores and metric in first.get(s.name, {})
        )
        for metric in measured(before, after)
    }


def results(
    name: str,
    systems: Mapping[str, Sequence[Scored]],
    settings: Mapping[str, Any],
    words: Mapping[str, Recognition] | None = None,
    audio: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """The JSON-able record of an evaluation, from which reports are made.

    `name` is that of the set; `systems` maps a label (noisy, enhanced, a model) to its scores; `words` to what was
    recognised; `audio` a file of the set to {label: path}.
    """
    documents = {label: document(scored) for label, scored in systems.items()}
    for label, found in (words or {}).items():
        documents[label]["words"] = found.document()
    return {
        "format": FORMAT,
        "set": name,
        "settings": dict(settings),
        "versions": versions(),
        "systems": documents,
        "audio": {file: dict(paths) for file, paths in (audio or {}).items()},
    }


def versions() -> dict[str, str]:
    """What the scores may depend on: versions of Python, this package and the libraries that measure."""
    found = {"python": platform.python_version()}
    for package in ("semamba", "numpy", "torch", "pesq", "pystoi", "jiwer", "onnxruntime", "speechmos"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def document(scored: Sequence[Scored]) -> dict[str, Any]:
    """JSON-able {"mean", "interval", "count", "files", "left_out", "interval_method"}.

    "interval" holds [low, high], "left_out" {file: {metric or "file": reason}}; a mean that does not exist is null.
    """
    summary = summarise(scored)
    return {
        "mean": {m: e.mean if e.count else None for m, e in summary.items()},
        "interval": {
            m: [e.mean - e.half_width, e.mean + e.half_width] if e.count > 1 else None for m, e in summary.items()
        },
        "count": {m: e.count for m, e in summary.items()},
        "files": {s.name: s.scores for s in scored if s.scores},
        "left_out": {s.name: s.problems for s in scored if s.problems},
        "interval_method": INTERVAL,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON document; the old file stays until the new one is complete. Raises SemambaError."""
    _replace(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(
    path: Path, columns: Mapping[str, Sequence[Scored]], words: Mapping[str, Recognition | None] | None = None
) -> None:
    """One line a file, reasons last. `columns` maps a prefix of the metric names ("" or "noisy_") to results.

    `words` adds the word error rate of each file under the same prefixes, with what was heard.
    """
    recognised = {prefix: found.files for prefix, found in (words or {}).items() if found is not None}
    names = list(dict.fromkeys(s.name for scored in columns.values() for s in scored))
    found = {(prefix, s.name): s for prefix, scored in columns.items() for s in scored}
    metrics = measured(*columns.values())
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    scores = [prefix + metric for prefix in columns for metric in metrics]
    spoken = [prefix + key for prefix in recognised for key in ("wer", "heard")]
    writer.writerow(["file", *scores, *spoken, "left_out"])
    for name in names:
        row: list[Any] = [name]
        reasons: list[str] = []
        for prefix in columns:
            result = found.get((prefix, name), Scored(name))
            row += [result.scores.get(metric, "") for metric in metrics]
            reasons += [f"{prefix}{metric}: {reason}" for metric, reason in result.problems.items()]
        for files in recognised.values():
            row += [files[name].words.rate, files[name].heard] if name in files else ["", ""]
        writer.writerow([*row, "; ".join(reasons)])
    _replace(path, text.getvalue())


def problem_lines(scored: Sequence[Scored]) -> list[str]:
    """One line for each file with something left out: `name: metrics: reason`."""
    lines = []
    for result in scored:
        reasons: dict[str, list[str]] = {}
        for metric, reason in result.problems.items():
            reasons.setdefault(reason, []).append(metric)
        for reason, metrics in reasons.items():
            what = "" if metrics == ["file"] else f" ({', '.join(metrics)})"
            lines.append(f"{result.name}{what}: {reason}")
    return lines


def _t_975(degrees: int) -> float:
    """97.5% point of Student's t; beyond the table the Cornish-Fisher expansion, good to 1e-4 there."""
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _replace(path: Path, text: str) -> None:
    try:
        write_atomic(path, lambda temporary: temporary.write_text(text, "utf-8", "surrogateescape", newline=""))
    except OSError as error:
        raise SemambaError(f"{path}: cannot be written ({error.strerror or error})") from None
