"""The advanced model: layout, output ranges, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from semamba.models.advanced import AdvancedConfig, AdvancedModel
from semamba.models.mixers import MixerConfig
from semamba.ops import using
from semamba.spectrum import StftConfig

VARIANTS = {
    "mamba": MixerConfig("mamba", expand=2, d_state=4),
    "mamba-uni": MixerConfig("mamba", bidirectional=False, expand=2, d_state=4),
    "conformer": MixerConfig("conformer", heads=2, kernel=5),
    "transformer": MixerConfig("transformer", heads=2, head_dim=4),
    "lstm": MixerConfig("lstm"),
}


def small(name: str = "mamba") -> AdvancedModel:
    torch.manual_seed(2)
    stft = StftConfig(32, 8, "hann", "centred", "power", 0.3)
    return AdvancedModel(AdvancedConfig(stft=stft, channels=8, blocks=1, mixer=VARIANTS[name])).eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_shape_range_and_gradients(name: str) -> None:
    model = small(name)
    x = torch.randn(2, 9, 17, 2)
    y, state = model(x)
    assert y.shape == x.shape and state is None
    assert (y.norm(dim=-1) <= 2 * x.norm(dim=-1) + 1e-5).all()
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_without_gradients_layers_are_joined_and_give_the_same(name: str) -> None:
    model = small(name)
    for parameter in model.parameters():  # fresh biases and slopes are zeros and constants
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 33, 17, 2)
    with torch.inference_mode():
        joined = model(x)[0]
    torch.testing.assert_close(model(x)[0].detach(), joined, atol=2e-4, rtol=1e-3)
    with torch.inference_mode(), using("reference"):
        exact = model.double()(x.double())[0]
    error = (joined - exact).square().sum() / exact.square().sum()
    assert float(error) < 1e-8  # 80 dB; a phase near zero is worth no digits


@pytest.mark.parametrize("name", VARIANTS)
def test_a_state_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="needs the future"):
        small(name)(torch.randn(1, 9, 17, 2), object())


def test_items_of_a_batch_do_not_mix() -> None:
    model = small()
    x = torch.randn(3, 9, 17, 2)
    alone = torch.cat([model(item[None])[0] for item in x])
    torch.testing.assert_close(model(x)[0], alone, atol=1e-5, rtol=1e-4)


def test_features_stay_contiguous_from_encoder_to_decoders() -> None:
    model = small()
    seen: list[bool] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output.is_contiguous())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(record)
    model(torch.randn(2, 9, 17, 2))
    assert len(seen) == 19 and all(seen)


@pytest.mark.parametrize("name", VARIANTS)
def test_silence_stays_silent_with_finite_gradients(name: str) -> None:
    model = small(name)
    x = torch.zeros(1, 6, 17, 2, requires_grad=True)
    y, _ = model(x)
    y.sum().backward()
    assert y.abs().max() < 1e-5
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
