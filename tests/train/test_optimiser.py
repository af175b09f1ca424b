"""Muon: directions without lengths, AdamW for the rest, the same weights after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semamba.errors import SemambaError
from semamba.train.loop import Run
from semamba.train.optimiser import is_matrix, muon, orthogonal
from semamba.train.recipe import OptimiserConfig
from semamba.train.step import start, train_step
from tests.train import tiny

CPU = torch.device("cpu")
MUON = {"kind": "muon"}


@pytest.mark.parametrize("shape", [(3, 5, 9), (2, 9, 5), (1, 7, 7), (1, 1, 4)])
def test_every_direction_gets_about_the_same_length(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = orthogonal(x)
    lengths = torch.linalg.svdvals(y)
    assert y.shape == x.shape and lengths.min() > 0.5 and lengths.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(y.flatten(), (u @ v).flatten(), dim=0) > 0.95
    assert torch.allclose(orthogonal(100 * x), y, atol=1e-4)


def test_no_gradient_is_no_direction() -> None:
    assert not orthogonal(torch.zeros(1, 4, 6)).any()


def test_matrices_are_told_from_tables() -> None:
    t = start(tiny.recipe(), CPU)
    chosen = {name for name, p in t.model.named_parameters() if is_matrix(name, p)}
    assert {"encode_in.weight", "blocks.0.time.in_proj.weight", "down.bands"} <= chosen
    assert not {"band_bias", "sub_band_bias", "blocks.0.time.A_log", "blocks.0.time.conv1d.weight"} & chosen
    parts = muon(t.model, OptimiserConfig()).parts
    sizes = [sum(p.numel() for group in part.param_groups for p in group["params"]) for part in parts]
    assert sum(sizes) == sum(p.numel() for p in t.model.parameters()) and min(sizes) > 0


def test_a_step_has_the_size_of_adamw() -> None:
    weight = torch.nn.Parameter(torch.zeros(24, 48))
    model = torch.nn.Module()
    model.register_parameter("weight", weight)
    optimiser = muon(model, OptimiserConfig(lr=1e-2, weight_decay=0.0))
    weight.grad = torch.randn(24, 48, generator=torch.Generator().manual_seed(0))
    optimiser.step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2e-2, rel=0.2)


def test_loss_falls_on_one_batch() -> None:
    t = start(tiny.recipe(optimiser={"lr": 1e-2, **MUON}), CPU)
    noisy, clean = next(tiny.batches(0))
    first, *_, last = [float(train_step(t, noisy, clean, 0.0)["loss"]) for _ in range(40)]
    assert last < 0.7 * first, (first, last)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    by_step = {**MUON, "schedule": "exponential"}  # a rate that does not depend on how long the run will be
    whole = Run(tiny.recipe(optimiser=by_step), tmp_path / "whole", tiny.batches, [])
    whole.train()
    Run(tiny.recipe(optimiser=by_step, train={"steps": 4}), tmp_path / "parts", tiny.batches, []).train()
    resumed = Run(tiny.recipe(optimiser=by_step), tmp_path / "parts", tiny.batches, [])
    assert resumed.training.step == 4
    resumed.train()
    expected = whole.training.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.training.model.state_dict().items())


def test_the_state_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    Run(tiny.recipe(), tmp_path, tiny.batches, []).train()
    with pytest.raises(SemambaError, match="optimiser"):
        Run(tiny.recipe(optimiser=MUON, train={"steps": 9}), tmp_path, tiny.batches, [])
