"""What one measurement holds, in this process and in one of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from semamba.errors import SemambaError
from semamba.profiling import worker
from semamba.profiling.machine import PeakMemory
from semamba.profiling.runner import Limits, measure
from semamba.profiling.spec import Measured, Skipped, Spec
from semamba.profiling.stages import StageClock

Events = list[str]


def execute(spec: Spec) -> tuple[Measured, Events]:
    events: Events = []
    return worker.execute(spec, lambda event, **content: events.append(event)), events


def test_passes_are_announced_and_timed(basic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_REPEAT_SECONDS", 0.0)
    result, events = execute(Spec(basic, seconds=0.3, batch=2))
    assert events == ["ready"] + ["pass"] * (1 + result.count)
    assert result.count == 3 and 0 < result.fastest <= result.median <= result.slowest
    assert result.process_bytes > 50e6 and result.stages == {}


def test_the_stages_add_up(basic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_REPEAT_SECONDS", 0.0)
    stages = execute(Spec(basic, seconds=0.3, stages=True))[0].stages
    assert list(stages) == ["STFT", "encoder", "mixers", "decoder", "iSTFT", "other"]
    assert all(value >= 0 for value in stages.values())


def test_a_list_of_modules_is_one_stage_and_hooks_go_away() -> None:
    network = nn.Module()
    network.parts = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    clock = StageClock(torch.device("cpu"))
    with clock.watching(network):
        for part in network.parts:
            part(torch.ones(1, 3))
    assert list(clock.seconds()) == ["parts"] and len(clock._spans) == 2
    network.parts[0](torch.ones(1, 3))
    assert len(clock._spans) == 2


def test_a_stream_is_timed_hop_by_hop(causal: str) -> None:
    result, events = execute(Spec(causal, seconds=0.32, work="stream"))
    assert (result.count, result.hop_seconds, events) == (20, 0.016, ["ready", "pass"])
    assert result.latency_seconds == 511 / 16_000
    assert result.median <= result.p99 <= result.slowest


def test_the_reference_is_a_baseline(causal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from semamba.ops import dispatch

    monkeypatch.setattr(worker, "_REPEAT_SECONDS", 0.0)
    execute(Spec(causal, seconds=0.1, backend="reference"))
    assert dispatch._forced is None


def test_memory_counts_from_its_start() -> None:
    memory = PeakMemory()
    before = memory.above_base()
    block = np.ones(50_000_000 // 8)  # touched, so resident
    assert memory.above_base() - before >= 45e6
    assert memory.total() >= memory.base
    del block


def test_a_process_of_its_own(basic: str) -> None:
    result = measure(Spec(basic, seconds=0.1, threads=1), Limits(60, 8))
    assert isinstance(result, Measured) and result.peak_bytes > 0
    assert result.process_bytes > result.peak_bytes


@pytest.mark.parametrize(
    ("length", "limits", "reason"),
    [(30.0, Limits(0.001, 8), "takes over 0.001 s"), (600.0, Limits(60, 0.05), "needs over 0.05 GB")],
)
def test_a_point_over_a_limit_is_stopped(length: float, limits: Limits, reason: str) -> None:
    assert measure(Spec("core-mamba" if length == 30 else "core-lstm", length, threads=1), limits) == Skipped(reason)


def test_a_failure_is_no_skip(basic: str, tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="nowhere"):
        measure(replace(Spec(basic), subject=str(tmp_path / "nowhere")), Limits())


def test_memory_that_the_system_refuses_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(worker, "execute", refuse)
    monkeypatch.setattr("sys.argv", ["worker", '{"subject": "x"}'])
    worker.main()
    assert capsys.readouterr().out.strip() == '{"event": "memory"}'
