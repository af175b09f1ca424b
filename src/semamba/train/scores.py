"""Mean scores of pairs, each scored in a worker process; no torch here, so that a worker starts quickly."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from semamba.metrics.pool import map_isolated

SCORES = ("pesq", "stoi", "si_sdr")

Wave = NDArray[np.float32]


def score_all(signals: Iterable[tuple[Wave, Wave]], jobs: int) -> dict[str, float]:
    """Mean PESQ-WB, STOI and SI-SDR of (clean, other) signals; NaN where a measure is defined for none of them.

    `unscored` counts the single measures that were not defined, for example of a silent output, or whose worker died.
    """
    numbered = map_isolated(score_pair, signals, jobs, on_crash=lambda _: {})
    scored = [scores for _, scores in sorted(numbered, key=lambda item: item[0])]
    means = {}
    for name in SCORES:
        values = [scores[name] for scores in scored if name in scores]
        means[name] = float(np.mean(values)) if values else float("nan")
    means["unscored"] = float(sum(len(SCORES) - len(scores) for scores in scored))
    return means


def score_pair(signals: tuple[Wave, Wave]) -> dict[str, float]:
    """Scores of (clean, enhanced), in a worker process without torch; a measure that is not defined is left out."""
    from semamba.metrics import intrusive

    clean, enhanced = signals
    measures = {"pesq": intrusive.pesq_wb, "stoi": intrusive.stoi, "si_sdr": intrusive.si_sdr}
    scores = {}
    for name, measure in measures.items():
        try:
            scores[name] = measure(clean, enhanced)
        except intrusive.MetricError:
            continue
    return scores
