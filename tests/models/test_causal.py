"""The causal family: streaming, causality, level, silence, cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semamba.errors import SemambaError
from semamba.models import build
from semamba.models.causal import CausalConfig, CausalModel, triangular_bands
from semamba.models.complexity import profile
from semamba.models.presets import PRESETS
from semamba.ops import cpu, using

SMALL = CausalConfig(channels=12, sub_bands=10, d_model=12, blocks=2, d_state=5, heads=3)
VARIANTS = {
    "attention": SMALL,
    "mamba": replace(SMALL, frequency="mamba"),
    "wide": replace(SMALL, stride=8, layers=1),
    "real-mask": replace(SMALL, output="real_mask"),
    "mapping": replace(SMALL, output="mapping"),
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def model_for(config: CausalConfig) -> CausalModel:
    """Far from the identity mask that it starts with, so that every part matters."""
    torch.manual_seed(0)
    model = build(config)
    assert isinstance(model, CausalModel)
    with torch.no_grad():
        model.decode_out.weight.mul_(10)
    return model.eval()


def speech_like(frames: int, bins: int = 257, seed: int = 1) -> Tensor:
    """Compressed spectrum of noise whose level moves over time."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(1, frames, 1, 1, generator=generator) + 0.2
    return level * torch.randn(2, frames, bins, 2, generator=generator)


@variants
@settings(max_examples=8, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 21), max_size=4))
def test_splitting_anywhere_changes_nothing(variant: str, cuts: list[int]) -> None:
    model, x = model_for(VARIANTS[variant]), speech_like(21)
    edges = [0, *sorted(cuts), 21]
    pieces, state = [], None
    with torch.no_grad():
        whole, end = model(x)
        for a, b in zip(edges, edges[1:], strict=False):
            piece, state = model(x[:, a:b], state)
            pieces.append(piece)
    assert state is not None
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)
    assert torch.allclose(state.level, end.level, rtol=1e-5)
    for memory, expected in zip(state.blocks, end.blocks, strict=True):
        assert torch.allclose(memory.conv, expected.conv, atol=1e-5)
        assert torch.allclose(memory.scan, expected.scan, atol=1e-5)


def test_the_running_level_over_more_than_one_chunk() -> None:
    """It is computed in chunks of 256 frames."""
    model, x = model_for(SMALL), speech_like(600, bins=3)
    level, _ = model._running_level(x, None)
    total = count = torch.zeros(2)
    for t in range(600):
        total = total * model.decay + x[:, t].square().sum(-1).sqrt().mean(-1)
        count = count * model.decay + 1
        if t % 97 == 0:
            assert torch.allclose(level[:, t], total / count, rtol=1e-4)


@variants
def test_the_past_does_not_see_the_future(variant: str) -> None:
    model, x = model_for(VARIANTS[variant]), speech_like(21)
    changed = x.clone()
    changed[:, 13:] = 7 * changed[:, 13:].flip(2)
    with torch.no_grad():
        before, after = model(x)[0], model(changed)[0]
    assert torch.allclose(before[:, :13], after[:, :13], atol=1e-6)
    assert not torch.allclose(before[:, 13:], after[:, 13:], atol=0.1)


@variants
@pytest.mark.parametrize("scale", [0.1, 0.5, 20.0])  # of the waveform; the compressed magnitude goes with s^0.3
def test_the_level_of_the_input_is_the_level_of_the_output(variant: str, scale: float) -> None:
    model, x, factor = model_for(VARIANTS[variant]), speech_like(21), scale**0.3
    with torch.no_grad():
        wanted, actual = factor * model(x)[0], model(factor * x)[0]
    assert float((actual - wanted).norm() / wanted.norm()) < 1e-3


@variants
def test_silence_gives_silence(variant: str) -> None:
    model = model_for(VARIANTS[variant])
    x = torch.zeros(1, 20, 257, 2, requires_grad=True)
    y, state = model(x)
    assert not y.any()
    assert bool(state.level.isfinite().all()) and all(bool(t.isfinite().all()) for m in state.blocks for t in m)
    y.square().sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
    with torch.no_grad():  # and speech after silence is not blown up by a level near zero
        after, _ = model(speech_like(5)[:1], state)
    assert bool(after.isfinite().all()) and float(after.abs().max()) < 1e3


def test_each_item_of_a_batch_is_on_its_own() -> None:
    model, x = model_for(SMALL), speech_like(9)
    other = torch.stack([x[0], 3 * x[1].flip(0)])
    with torch.no_grad():
        assert torch.allclose(model(x)[0][0], model(other)[0][0], atol=1e-6)


@pytest.mark.skipif(not cpu.available(), reason="the C++ kernels were not built")
@variants
def test_kernels_and_reference_agree(variant: str) -> None:
    """Outputs and gradients of the whole model, fused and composed."""
    model, x = model_for(VARIANTS[variant]), speech_like(21)
    results = []
    for backend in ("cpu", "reference"):
        model.zero_grad()
        with using(backend):  # type: ignore[arg-type]
            y, _ = model(x)
            y.square().mean().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append({"y": y.detach(), **gradients})
    assert results[0].keys() == results[1].keys() == {"y", *(n for n, _ in model.named_parameters())}
    for name, value in results[0].items():
        expected = results[1][name]
        assert float((value - expected).abs().max()) <= 1e-4 * float(expected.abs().max()) + 1e-7, name


def test_no_frames() -> None:
    model = model_for(SMALL)
    with torch.no_grad():
        y, state = model(torch.zeros(1, 0, 257, 2))
        assert y.shape == (1, 0, 257, 2)
        x = speech_like(4)[:1]
        assert torch.allclose(model(x, state)[0], model(x)[0], atol=1e-6)


@pytest.mark.parametrize("variant", ["attention", "real-mask"])
def test_the_mask_starts_near_the_identity(variant: str) -> None:
    torch.manual_seed(0)
    model, x = build(VARIANTS[variant]), speech_like(9)
    with torch.no_grad():
        y, _ = model(x)
    assert float((y - x).norm() / x.norm()) < 0.3


def test_a_real_mask_keeps_the_phase_and_a_mapping_does_not_need_the_input_bin() -> None:
    x = speech_like(9)
    x[:, :, 40] = 0
    with torch.no_grad():
        masked, complex_masked, mapped = (model_for(VARIANTS[v])(x)[0] for v in ("real-mask", "attention", "mapping"))
    cross = masked[..., 0] * x[..., 1] - masked[..., 1] * x[..., 0]  # zero where the angle is the same or opposite
    assert float(cross.abs().max()) < 1e-4 and not masked[:, :, 40].any()
    assert float((complex_masked[..., 0] * x[..., 1] - complex_masked[..., 1] * x[..., 0]).abs().max()) > 0.1
    assert bool(mapped[:, :, 40].any())


@pytest.mark.parametrize(("few", "many"), [(24, 64), (10, 64), (10, 32), (5, 5)])
def test_bands_cover_everything_and_sum_to_one(few: int, many: int) -> None:
    for matrix in (triangular_bands(many, few), triangular_bands(few, many)):
        assert torch.allclose(matrix.sum(1), torch.ones(matrix.shape[0]), atol=1e-6)
        assert bool((matrix >= 0).all()) and bool((matrix.sum(0) > 0).all())


def test_the_small_preset_keeps_its_budget() -> None:
    cost = profile(PRESETS["causal-small"])
    assert cost.honest_macs_per_second <= 300e6
    assert cost.latency_ms is not None and cost.latency_ms <= 32


@pytest.mark.parametrize("heads", [0, -4, 5])
def test_heads_that_share_nothing_evenly_are_refused(heads: int) -> None:
    with pytest.raises(SemambaError, match="heads"):
        build(replace(SMALL, heads=heads))
