"""Which points are measured, which are left out, and what is said about them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from semamba.errors import SemambaError
from semamba.models.presets import PRESETS
from semamba.profiling import subjects, worker
from semamba.profiling.runner import Limits
from semamba.profiling.spec import Measured, Skipped, Spec
from semamba.profiling.survey import Survey, busy, growth, run
from tests.profiling.conftest import here


def square(spec: Spec, limits: Limits) -> Measured | Skipped:
    """Quadratic in time, linear in memory, above 16 s too slow."""
    if spec.seconds > 16:
        return Skipped("takes over 9 s")
    time = 0.01 * spec.seconds**2
    return Measured(time, time, time, time, 3, int(1e6 * spec.seconds), 10**8)


def test_nothing_is_guessed_beyond_a_limit() -> None:
    asked: list[float] = []

    def measure(spec: Spec, limits: Limits) -> Measured | Skipped:
        asked.append(spec.seconds)
        return square(spec, limits)

    survey = Survey([], ["core-lstm"], lengths=(40, 4, 8, 16, 20))
    [series] = run(survey, measure=measure)["lengths"]
    assert asked == [4, 8, 16, 20]
    assert [point.get("time") for point in series["points"]] == [0.16, 0.64, 2.56, None, None]
    assert [point.get("skipped") for point in series["points"][3:]] == [
        "takes over 9 s",
        "not tried: 20 s already takes over 9 s",
    ]
    assert series["growth"] == pytest.approx({"from": 8, "to": 16, "time": 2.0, "peak_bytes": 1.0})


def test_growth_needs_two_points() -> None:
    assert growth([{"seconds": 1, "time": 1.0, "peak_bytes": 5}, {"seconds": 2, "skipped": "x"}]) is None


def test_a_model_has_every_figure(causal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_REPEAT_SECONDS", 0.0)
    document = run(Survey([causal], seconds=0.3, batches=(1, 2), stream=True), measure=here)
    json.dumps(document)
    [row] = document["models"]
    assert (row["weights"], row["causal"], row["latency_ms"]) == ("folder", True, 32.0)
    one, two = row["batches"]
    assert one["rtf"] == pytest.approx(one["time"] / 0.3) and two["throughput"] == pytest.approx(0.6 / two["time"])
    assert row["stages"].keys() >= {"STFT", "encoder", "blocks", "decoder", "iSTFT", "other"}
    assert row["stream"]["hop"] == 0.016 and row["stream"]["hops"] == 18
    assert row["stream"]["latency"] == 511 / 16_000
    assert row["honest_macs_per_second"] > row["parameters"]


def test_models_that_need_the_future_do_not_stream(basic: str) -> None:
    [row] = run(Survey([basic], seconds=2, batches=(1,), stream=True), measure=square)["models"]
    assert "stream" not in row and row["latency_ms"] is None


@pytest.mark.parametrize("name", subjects.CORES)
def test_each_core_runs_and_knows_its_cost(name: str) -> None:
    description = subjects.describe(name, 1.0)
    assert description["weights"] == "random" and description["parameters"] > 10_000
    # Cost per second grows with length for attention only.
    longer = subjects.describe(name, 4.0)["honest_macs_per_second"] / description["honest_macs_per_second"]
    if name in ("core-transformer", "core-conformer"):
        assert longer > 1.3
    else:
        assert longer == pytest.approx(1)


def test_names_are_shipped_models_then_presets() -> None:
    names = subjects.default_names()
    assert set(PRESETS) <= set(names) and len(names) == len(set(names))


def test_a_wrong_name_is_found_before_anything_is_measured() -> None:
    with pytest.raises(SemambaError, match="core-mamba"):
        run(Survey(["advanced-mamba", "core-mumba"]), measure=square)


def test_a_busy_machine_is_mentioned() -> None:
    def document(load: float | None) -> dict[str, Any]:
        return {"machine": {"load": load}}

    assert busy(document(None)) == busy(document(0.1)) == ""
    assert "load 3.0" in busy(document(3.0))
