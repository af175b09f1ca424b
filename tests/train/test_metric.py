"""The metric recipe: labels arrive late and stall nothing, both nets learn, kills and crashes change nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semamba.errors import SemambaError
from semamba.metrics import intrusive
from semamba.train import pesq_labels
from semamba.train.loop import Run
from semamba.train.pesq_labels import PENDING, PesqLabels
from semamba.train.recipe import Recipe
from semamba.train.step import Training, start, train_step
from tests.train import tiny
from tests.train.test_loop import SAVE_EVERY_STEP, Killed, killed_at

CPU = torch.device("cpu")
Scorer = Callable[[np.ndarray, np.ndarray], float]


def recipe(**groups: object) -> Recipe:
    settings = {"channels": 4, "jobs": 1, "wait": True, **groups.pop("discriminator", {})}  # type: ignore[dict-item]
    return tiny.recipe(loss={"metric": 0.05}, discriminator=settings, **groups)


def resemblance(clean: np.ndarray, enhanced: np.ndarray) -> float:
    """Stands for PESQ, which takes its time: 1 for noise, 4.5 for the clean signal."""
    return 1 + 3.5 * float(np.corrcoef(clean, enhanced)[0, 1]) ** 2


@pytest.fixture
def score_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Scorer], None]]:
    """Labels from a function in a thread of this process."""
    pools: list[Executor] = []

    def new_pool(jobs: int) -> Executor:
        pools.append(ThreadPoolExecutor(jobs))
        return pools[-1]

    def choose(scorer: Scorer) -> None:
        monkeypatch.setattr(pesq_labels.intrusive, "pesq_wb", scorer)

    monkeypatch.setattr(pesq_labels, "new_pool", new_pool)
    monkeypatch.setattr(pesq_labels.intrusive, "require_extra", lambda: None)
    choose(resemblance)
    yield choose
    for pool in pools:
        pool.shutdown()


def everything(t: Training) -> dict[str, Tensor]:
    assert t.critic is not None
    nets = {"model": t.model, "ema": t.ema.model, "discriminator": t.critic.model}
    return {f"{net}.{name}": value.clone() for net, m in nets.items() for name, value in m.state_dict().items()}


def test_labels_come_a_step_later_and_both_nets_learn(score_with: Callable[[Scorer], None]) -> None:
    t = start(recipe(optimiser={"lr": 1e-2}, discriminator={"lr": 1e-2}), CPU)
    batch = next(tiny.batches(0))
    logs = [train_step(t, *batch, 0.0) for _ in range(40)]
    assert float(logs[0]["labelled"]) == 0 and "discriminator" not in logs[0]
    assert all(float(log["labelled"]) == 1 and 1 < float(log["pesq"]) < 4.5 for log in logs[1:])
    first, last = logs[1], logs[-1]
    assert float(last["loss"]) < 0.7 * float(first["loss"])
    assert float(last["discriminator"]) < 0.3 * float(first["discriminator"])
    assert t.bad_steps == 0 and {"metric", "gradient", "discriminator_gradient"} <= last.keys()


def test_late_labels_stall_nothing_and_are_used_when_they_arrive(score_with: Callable[[Scorer], None]) -> None:
    arrived = threading.Event()

    def late(clean: np.ndarray, enhanced: np.ndarray) -> float:
        assert arrived.wait(60)
        return 2.75

    score_with(late)
    t = start(recipe(discriminator={"wait": False}), CPU)
    assert t.critic is not None
    batch = next(tiny.batches(0))
    for _ in range(PENDING + 2):
        assert float(train_step(t, *batch, 0.0)["labelled"]) == 0
    assert len(t.critic.labels.pending) == PENDING
    arrived.set()
    t.critic.labels.pending[0].scores[-1].result(60)
    log = train_step(t, *batch, 0.0)
    assert (float(log["labelled"]), float(log["pesq"])) == (1, pytest.approx(2.75))


def test_an_item_without_score_is_left_out_alone(score_with: Callable[[Scorer], None]) -> None:
    calls = iter(range(100))

    def fails_for_every_other(clean: np.ndarray, enhanced: np.ndarray) -> float:
        if next(calls) % 2:
            raise intrusive.MetricError("PESQ failed: no utterance")
        return 3.0

    score_with(fails_for_every_other)
    t = start(recipe(), CPU)
    batch = next(tiny.batches(0))
    train_step(t, *batch, 0.0)
    log = train_step(t, *batch, 0.0)
    assert (float(log["labelled"]), float(log["pesq"])) == (0.5, pytest.approx(3.0))


@pytest.mark.parametrize("parallel", [1, 2])
def test_micro_batches_give_the_same_steps(score_with: Callable[[Scorer], None], parallel: int) -> None:
    split = recipe(train={"accumulate": 2, "parallel": parallel})
    whole, parts = start(recipe(), CPU), start(split, CPU)
    for _, batch in zip(range(3), tiny.batches(0), strict=False):
        logs = [train_step(t, *batch, 0.0) for t in (whole, parts)]
        for name in logs[0]:
            assert float(logs[0][name]) == pytest.approx(float(logs[1][name]), rel=2e-3), name


def test_a_bad_step_changes_neither_net_and_asks_for_no_labels(score_with: Callable[[Scorer], None]) -> None:
    t = start(recipe(optimiser={"max_bad_steps": 2}), CPU)
    assert t.critic is not None
    noisy, clean = next(tiny.batches(0))
    before = everything(t)
    train_step(t, noisy, clean * float("nan"), 0.0)
    assert all(torch.equal(value, before[name]) for name, value in everything(t).items())
    assert t.bad_steps == 1 and not t.critic.labels.pending


def test_a_bad_discriminator_is_counted_and_limited_too(score_with: Callable[[Scorer], None]) -> None:
    score_with(lambda clean, enhanced: float("inf"))
    t = start(recipe(optimiser={"max_bad_steps": 2}), CPU)
    assert t.critic is not None
    batch, before = next(tiny.batches(0)), t.critic.model.score[0].bias.clone()
    train_step(t, *batch, 0.0)
    train_step(t, *batch, 0.0)
    assert t.bad_in_a_row == 1 and torch.equal(t.critic.model.score[0].bias, before)
    train_step(t, *batch, 0.0)  # nothing was asked in the bad step, so nothing is wrong here
    assert t.bad_in_a_row == 0


@pytest.mark.parametrize("step", [1, 4])
def test_a_killed_run_resumes_to_the_same_weights(
    score_with: Callable[[Scorer], None], tmp_path: Path, step: int
) -> None:
    whole = Run(recipe(), tmp_path / "whole", tiny.batches, [])
    whole.train()
    with pytest.raises(Killed):
        Run(recipe(**SAVE_EVERY_STEP), tmp_path / "killed", killed_at(step), []).train()
    resumed = Run(recipe(), tmp_path / "killed", tiny.batches, [])
    assert resumed.training.step == step
    resumed.train()
    expected = everything(whole.training)
    assert all(torch.equal(value, expected[name]) for name, value in everything(resumed.training).items())


def test_a_run_without_discriminator_cannot_go_on_with_one(
    score_with: Callable[[Scorer], None], tmp_path: Path
) -> None:
    Run(tiny.recipe(train={"steps": 1}), tmp_path, tiny.batches, []).train()
    with pytest.raises(SemambaError, match="no discriminator"):
        Run(recipe(), tmp_path, tiny.batches, [])


def test_a_crop_too_short_for_the_discriminator_is_refused(score_with: Callable[[Scorer], None]) -> None:
    with pytest.raises(SemambaError, match="crop_seconds: the discriminator needs 16 frames"):
        start(recipe(mix={"crop_seconds": 0.1}), CPU)


def test_labels_are_pesq_and_survive_a_crash() -> None:
    pytest.importorskip("pesq")
    pair = tiny.speech_like()
    clean, noisy = torch.from_numpy(pair.clean)[None], torch.from_numpy(pair.noisy)[None]
    labels = PesqLabels(jobs=1)
    try:
        labels.ask(torch.cat([clean, 0 * clean]), torch.cat([noisy, noisy]))
        known, silent = labels.take()[2].tolist()
        assert known == pytest.approx((intrusive.pesq_wb(pair.clean, pair.noisy) - 1) / 3.5, abs=1e-4)
        assert np.isnan(silent)
        crash = labels._pool.submit(os._exit, 1)
        with pytest.raises(BrokenProcessPool):
            crash.result(60)
        labels.ask(clean, noisy)
        assert labels.take()[2].tolist() == [pytest.approx(known)]
    finally:
        labels.close()
