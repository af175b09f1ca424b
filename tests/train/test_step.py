"""The step: it learns, schedules, skips what is not finite, and micro-batches change nothing."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import nn

from semamba.errors import SemambaError
from semamba.train.ema import Ema
from semamba.train.recipe import OptimiserConfig
from semamba.train.step import Training, differentiate, schedule, start, train_step
from semamba.train.target import normalise_pair
from tests.train import tiny

CPU = torch.device("cpu")


def weights(t: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in t.model.parameters()]).clone()


def test_loss_falls_on_one_batch() -> None:
    t = start(tiny.recipe(optimiser={"lr": 1e-2}), CPU)
    noisy, clean = next(tiny.batches(0))
    first, *_, last = [float(train_step(t, noisy, clean, 0.0)["loss"]) for _ in range(40)]
    assert last < 0.7 * first, (first, last)


@pytest.mark.parametrize("parallel", [1, 2])
def test_micro_batches_give_the_same_step(parallel: int) -> None:
    batch = next(tiny.batches(0))
    split = tiny.recipe(train={"accumulate": 2, "parallel": parallel})
    whole, parts = start(tiny.recipe(), CPU), start(split, CPU)
    losses = [float(train_step(t, *batch, 0.0)["loss"]) for t in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(weights(whole), weights(parts), atol=2e-4, rtol=1e-3)


def test_parallel_micro_batches_are_repeatable() -> None:
    recipe = tiny.recipe(train={"accumulate": 2, "parallel": 2})
    runs = [start(recipe, CPU), start(recipe, CPU)]
    for batch, _ in zip(tiny.batches(0), range(5), strict=False):
        for t in runs:
            train_step(t, *batch, 0.0)
    assert torch.equal(weights(runs[0]), weights(runs[1]))


def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted() -> None:
    t = start(tiny.recipe(optimiser={"max_bad_steps": 2}), CPU)
    noisy, clean = next(tiny.batches(0))
    before = weights(t)
    train_step(t, noisy, clean * float("nan"), 0.0)
    assert (t.bad_steps, t.bad_in_a_row, t.step) == (1, 1, 1)
    assert torch.equal(weights(t), before)
    train_step(t, noisy, clean, 0.0)
    assert (t.bad_steps, t.bad_in_a_row) == (1, 0) and not torch.equal(weights(t), before)
    with pytest.raises(SemambaError, match="not finite for 2 steps"):
        for _ in range(2):
            train_step(t, noisy, clean * float("nan"), 0.0)


def test_silent_pairs_train_without_trouble() -> None:
    t = start(tiny.recipe(), CPU)
    silence = torch.zeros(2, 4096)
    train_step(t, silence, silence, 0.0)
    train_step(t, next(tiny.batches(0))[0], silence, 0.0)
    assert t.bad_steps == 0


def test_pairs_are_brought_to_one_level_by_one_factor() -> None:
    noisy, clean = next(tiny.batches(0))
    loud, target = normalise_pair(noisy * torch.tensor([[1.0], [100.0]]), clean * torch.tensor([[1.0], [100.0]]))
    torch.testing.assert_close(loud.square().mean(-1), torch.ones(2))
    torch.testing.assert_close(target / loud, clean / noisy, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (tiny.MODEL, True),
        ({"preset": "basic-lstm-causal"}, False),
        ({"preset": "basic-lstm", "normalise": "rms"}, True),
    ],
)
def test_only_models_that_do_not_hear_levels_train_at_one(model: dict[str, object], expected: bool) -> None:
    recipe = dataclasses.replace(tiny.recipe(), model=model)
    assert start(recipe, CPU).one_level is expected


def test_schedule_warms_up_then_follows_a_cosine_to_the_floor() -> None:
    cfg = OptimiserConfig(warmup=10, floor=0.1)
    assert schedule(cfg, 0, 0.0) == pytest.approx(0.1)
    assert schedule(cfg, 9, 0.0) == pytest.approx(1.0)
    assert schedule(cfg, 500, 0.5) == pytest.approx(0.55)
    assert schedule(cfg, 1000, 1.0) == schedule(cfg, 2000, 1.7) == pytest.approx(0.1)


def test_the_exponential_schedule_falls_once_an_epoch() -> None:
    cfg = OptimiserConfig(schedule="exponential", warmup=10, decay=0.5, epoch=100)
    assert [schedule(cfg, step, 0.9) for step in (4, 99, 100, 250)] == pytest.approx([0.5, 1.0, 0.5, 0.25])


@pytest.mark.parametrize("model", [tiny.MODEL, tiny.ADVANCED, {"preset": "basic-lstm-causal"}], ids=str)
def test_low_precision_is_close_and_leaves_float32_weights(model: dict[str, object]) -> None:
    recipe, low = (tiny.recipe(train={"precision": name}) for name in ("float32", "bf16"))
    t = start(dataclasses.replace(recipe, model=model), CPU)
    pair = normalise_pair(*next(tiny.batches(0)))
    expected, _, _ = differentiate(t, *pair)
    t.recipe = low
    with torch.backends.mkldnn.flags(enabled=False):
        terms, gradients, _ = differentiate(t, *pair)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in (*terms.values(), *gradients))
    assert float(terms["loss"]) == pytest.approx(float(expected["loss"]), rel=0.05)
    assert terms["loss"] != expected["loss"], "nothing was computed in low precision"
    with pytest.raises(SemambaError, match="precision=bf16 is for GPUs"):
        start(low, CPU)


@pytest.mark.parametrize("model", [tiny.MODEL, tiny.ADVANCED], ids=str)
def test_a_compiled_model_takes_the_same_steps(model: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    # the same capture as by default, without minutes of C++
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    plain, compiled = (
        start(dataclasses.replace(tiny.recipe(train={"compile": wanted}), model=model), CPU) for wanted in (False, True)
    )
    assert compiled.forward is not compiled.model
    for batch, _ in zip(tiny.batches(0), range(2), strict=False):
        losses = [float(train_step(t, *batch, 0.0)["loss"]) for t in (plain, compiled)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_statistics_of_a_bad_step_do_not_stay() -> None:
    conformer = {**tiny.ADVANCED, "mixer": {"kind": "conformer", "heads": 2, "kernel": 5}}
    t = start(dataclasses.replace(tiny.recipe(), model=conformer), CPU)
    noisy, clean = next(tiny.batches(0))
    train_step(t, noisy, clean, 0.0)
    train_step(t, noisy * float("nan"), clean, 0.0)
    assert t.bad_steps == 1 and all(value.isfinite().all() for value in t.model.state_dict().values())


def test_the_average_lags_behind_the_weights() -> None:
    t = start(tiny.recipe(train={"ema": 0.9}), CPU)
    before = weights(t)
    batch = next(tiny.batches(0))
    for _ in range(20):
        train_step(t, *batch, 0.0)
    averaged = torch.cat([p.flatten() for p in t.ema.model.parameters()])
    moved = (weights(t) - before).norm()
    assert 0 < (averaged - before).norm() < moved and (averaged - weights(t)).norm() < moved


def test_the_average_is_the_recurrence() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema, expected = Ema(model, 0.9), 0.0
    for step in range(200):
        nn.init.constant_(model.weight, step + 1.0)
        ema.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
        assert float(ema.model.weight) == pytest.approx(expected, rel=1e-4)
    assert 200 - float(ema.model.weight) == pytest.approx(9, abs=0.1)


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    t = start(tiny.recipe(optimiser={"clip": 1e-3}), CPU)
    norms, step = [], t.optimiser.step

    def note() -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in t.model.parameters() if p.grad is not None]).norm()))
        step()

    monkeypatch.setattr(t.optimiser, "step", note)
    assert float(train_step(t, *next(tiny.batches(0)), 0.0)["gradient"]) > 1e-2
    assert norms == [pytest.approx(1e-3, rel=1e-2)]
