"""What must not reach the kernels' memory: other types, other sizes, defaults that somebody else has set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semamba import models
from semamba.models.advanced import AdvancedConfig
from semamba.models.causal import CausalConfig
from semamba.models.layers import ConvBlock, FeatureConv
from semamba.models.mamba import Mamba, MambaConfig
from semamba.models.mixers import MixerConfig
from semamba.ops import cpu, dense_layer, frequency_attention, frequency_conv, instance_norm, line_layer, using

needs_kernels = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "kernels are there")
pytestmark = needs_kernels


@pytest.fixture(params=[torch.bfloat16, torch.float64])
def another_default(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set once the models are made, as a library that is imported later would."""
    before = torch.get_default_dtype()
    yield torch.set_default_dtype(request.param)
    torch.set_default_dtype(before)


def float32_models() -> list[tuple[torch.nn.Module, Tensor]]:
    torch.manual_seed(0)
    causal = models.build(CausalConfig(channels=8, sub_bands=8, d_model=16, blocks=1, heads=2))
    advanced = models.build(AdvancedConfig(channels=8, dense_depth=2, blocks=1, mixer=MixerConfig("mamba", d_state=4)))
    return [
        (causal, torch.randn(1, 12, 257, 2)),
        (advanced, torch.randn(1, 12, 201, 2)),
        (Mamba(MambaConfig(12)), torch.randn(2, 40, 12)),
    ]


MODELS = float32_models()


@pytest.mark.parametrize("index", range(len(MODELS)))
def test_the_default_type_of_the_process_changes_nothing(index: int, another_default: None) -> None:
    model, x = MODELS[index]
    with torch.no_grad():
        with using("reference"):
            expected = model(x)[0]
        result = model(x)[0]
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=1e-3)
    for parameter in model.parameters():
        parameter.grad = None
    model(x)[0].square().sum().backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


def test_autocast_does_not_reach_a_fused_pair() -> None:
    model, x = MODELS[1]
    with torch.no_grad():
        expected = model(x)[0]
        with torch.autocast("cpu", torch.bfloat16):
            result = model(x)[0]
    assert result.isfinite().all() and (result - expected).abs().mean() < 0.1 * expected.abs().mean()


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    "call",
    [
        lambda: instance_norm(ones(1, 3, 4, 8), ones(1), ones(8)),
        lambda: instance_norm(ones(1, 3, 4, 8), ones(8), ones(8), ones(1)),
        lambda: line_layer(ones(1, 3, 9, 8), ones(16, 7, 1, 3), ones(16), ones(16), ones(16), ones(16)),
        lambda: line_layer(ones(1, 3, 2, 8), ones(16, 8, 1, 3), ones(16), ones(16), ones(16), ones(16)),
        lambda: dense_layer([ones(1, 3, 4, 8)], ones(8, 16, 3, 3), ones(8), ones(8), ones(8), ones(8), 1),
        lambda: dense_layer([ones(1, 3, 4, 8)], ones(8, 8, 3, 3), ones(8), ones(8), ones(8), ones(1), 1),
        lambda: frequency_conv(ones(1, 3, 4, 8), ones(8), ones(8, 24), ones(4)),
        lambda: frequency_attention(ones(1, 3, 4, 8), ones(4), ones(24, 8), ones(24), ones(8, 8), ones(8), 2),
        lambda: frequency_attention(ones(1, 3, 4, 8), ones(8), ones(24, 8), ones(24), ones(8, 8), ones(8), 3),
        lambda: frequency_attention(ones(1, 3, 4, 8), ones(8), ones(24, 8), ones(24), ones(8, 8), ones(8), 0),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"must be float32|fewer than|cannot be shared"):
        call()


def test_groups_of_unequal_channels_are_composed() -> None:
    torch.manual_seed(0)
    groups = [torch.randn(1, 5, 6, 16), torch.randn(1, 5, 6, 32)]
    layer = torch.randn(16, 48, 3, 3), *(torch.randn(16) for _ in range(4))
    with using("reference"):
        expected = dense_layer(groups, *layer, 1)
    torch.testing.assert_close(dense_layer(groups, *layer, 1), expected, atol=1e-4, rtol=1e-4)


def test_layers_along_frequency_take_one_row() -> None:
    x, weights = torch.randn(6, 8), (ones(8), torch.randn(8, 24), ones(8))
    torch.testing.assert_close(frequency_conv(x, *weights), frequency_conv(x[None, None], *weights)[0, 0])


def test_at_zero_the_gradient_is_that_of_pytorch() -> None:
    gradients = []
    for backend in ("reference", "cpu"):
        torch.manual_seed(0)
        block = ConvBlock(FeatureConv(3, 4, 1))
        torch.nn.init.zeros_(block.conv.bias)  # exactly zero goes into the norm, and comes out of it
        with using(backend):  # type: ignore[arg-type]
            block(torch.zeros(1, 2, 3, 3)).sum().backward()
        gradients.append(block.norm.bias.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_library_of_another_version_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cpu._why_it_does_not_load() == ""
    monkeypatch.setattr(cpu, "_VERSION", cpu._VERSION + 1)
    assert "other sources" in cpu._why_it_does_not_load()
