"""Which points make up a profile, and the document they end in."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from semamba.profiling.machine import available_bytes, describe
from semamba.profiling.runner import Limits, measure
from semamba.profiling.spec import Measured, Skipped, Spec

Measure = Callable[[Spec, Limits], Measured | Skipped]
Say = Callable[[str], None]

DEFAULT_LENGTHS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Survey:
    """What to measure: `names` each on `seconds` of audio, `compared` each over `lengths` seconds."""

    names: Sequence[str]
    compared: Sequence[str] = ()
    seconds: float = 10.0
    batches: Sequence[int] = (1, 4)
    lengths: Sequence[float] = DEFAULT_LENGTHS
    device: str = "cpu"
    threads: int = 0
    stream: bool = False
    limits: Limits = field(default_factory=Limits)


def default_gigabytes() -> float:
    """Half of the memory that is free, so that a profile cannot take a machine down."""
    free = available_bytes()
    return Limits().gigabytes if free is None else max(0.5, round(free / 2e9, 1))


def run(survey: Survey, say: Say = lambda text: None, measure: Measure = measure) -> dict[str, Any]:
    """The whole profile as a JSON-able document; `say` hears what is measured next."""
    from semamba.profiling import subjects

    for name in [*survey.names, *survey.compared]:
        subjects.weights_of(name)  # a name that is wrong is found before the first minute is spent
    machine = describe(survey.threads, survey.device)
    settings = {
        "seconds": survey.seconds,
        "limit_seconds": survey.limits.seconds,
        "limit_gigabytes": survey.limits.gigabytes,
    }
    return {
        "machine": machine,
        "settings": settings,
        "models": [_model(survey, name, say, measure) for name in survey.names],
        "lengths": [_over_lengths(survey, name, say, measure) for name in survey.compared],
    }


def busy(document: dict[str, Any]) -> str:
    """A warning when other programs took part in the figures; empty when the machine was quiet."""
    load = document["machine"]["load"]
    if load is None or load < 0.5:
        return ""
    return f"load {load} on {os.cpu_count()} processors before the start: other programs slow these figures down"


def _model(survey: Survey, name: str, say: Say, measure: Measure) -> dict[str, Any]:
    from semamba.profiling import subjects

    row: dict[str, Any] = subjects.describe(name, survey.seconds)
    row["batches"] = []
    for batch in survey.batches:
        say(f"{name}, batch {batch}")
        spec = Spec(name, survey.seconds, batch, survey.device, survey.threads, stages=batch == survey.batches[0])
        point = measure(spec, survey.limits)
        row["batches"].append({"batch": batch, **_passes(point, survey.seconds * batch)})
    row["stages"] = row["batches"][0].pop("stages", {})
    for other in row["batches"][1:]:
        other.pop("stages", None)
    if survey.stream and row["causal"]:
        say(f"{name}, stream")
        spec = Spec(name, survey.seconds, 1, survey.device, survey.threads, work="stream")
        row["stream"] = _hops(measure(spec, survey.limits))
    return row


def _over_lengths(survey: Survey, name: str, say: Say, measure: Measure) -> dict[str, Any]:
    """One subject from the shortest signal to the longest; beyond the first one over a limit nothing is tried."""
    points: list[dict[str, Any]] = []
    over: Skipped | None = None
    for seconds in sorted(survey.lengths):
        say(f"{name}, {seconds:g} s")
        if over is None:
            point = measure(Spec(name, seconds, 1, survey.device, survey.threads), survey.limits)
            if isinstance(point, Skipped):
                over = Skipped(f"not tried: {seconds:g} s already {point.reason}")
        else:
            point = over
        points.append({"seconds": seconds, **_passes(point, seconds)})
        points[-1].pop("stages", None)
    return {"name": name, "points": points, "growth": growth(points)}


def growth(points: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Exponents p of time ~ length^p and memory ~ length^p between the two longest signals that were measured."""
    known = [point for point in points if "skipped" not in point]
    if len(known) < 2:
        return None
    first, last = known[-2:]
    step = math.log(last["seconds"] / first["seconds"])
    exponents = {
        key: math.log(last[key] / first[key]) / step
        for key in ("time", "peak_bytes")
        if first[key] > 0 and last[key] > 0
    }
    return {"from": first["seconds"], "to": last["seconds"], **exponents}


def _passes(point: Measured | Skipped, audio: float) -> dict[str, Any]:
    """A point of whole passes over `audio` seconds in all."""
    if isinstance(point, Skipped):
        return {"skipped": point.reason}
    figures = asdict(point)
    median = figures.pop("median")
    for key in ("p99", "hop_seconds", "latency_seconds"):
        figures.pop(key)
    return {"time": median, "rtf": median / audio, "throughput": audio / median, **figures}


def _hops(point: Measured | Skipped) -> dict[str, Any]:
    if isinstance(point, Skipped):
        return {"skipped": point.reason}
    return {
        "hop": point.hop_seconds,
        "latency": point.latency_seconds,
        "p50": point.median,
        "p99": point.p99,
        "worst": point.slowest,
        "hops": point.count,
        "peak_bytes": point.peak_bytes,
    }
