"""The baseline of the GPU benchmark computes what our network computes, with the same weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from semamba.models.advanced import AdvancedConfig, AdvancedModel
from semamba.models.discriminator import MetricDiscriminator
from semamba.models.mixers import MixerConfig
from semamba.spectrum import StftConfig

PATH = Path(__file__).parents[2] / "benchmarks" / "usual.py"


@pytest.fixture(scope="module")
def usual() -> ModuleType:
    spec = importlib.util.spec_from_file_location("usual", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same(ours: nn.Module, usual: nn.Module, *inputs: torch.Tensor) -> None:
    """Outputs and the gradient of every weight, in float64 but for what the layers keep in float32."""
    results = []
    for model in (ours.double(), usual.double()):
        y = model(*(x.double() for x in inputs))
        y = y[0] if isinstance(y, tuple) else y
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad((y * weight).sum(), list(model.parameters()))
        results.append({name: g for (name, _), g in zip(model.named_parameters(), gradients, strict=True)} | {"y": y})
    assert results[0].keys() == results[1].keys()
    for name, wanted in results[0].items():
        assert torch.allclose(results[1][name], wanted, rtol=0, atol=1e-5 * (1 + float(wanted.detach().abs().max()))), (
            name
        )


def test_the_generator(usual: ModuleType) -> None:
    torch.manual_seed(0)
    stft = StftConfig(n_fft=60, hop_length=20)
    config = AdvancedConfig(
        stft=stft, channels=8, dense_depth=2, blocks=1, mixer=MixerConfig("mamba", expand=2, d_state=4)
    )
    ours = AdvancedModel(config)
    baseline = usual.Advanced(config)
    baseline.load_state_dict(ours.state_dict())
    assert_same(ours, baseline, torch.randn(2, 11, stft.n_bins, 2))


def test_the_discriminator(usual: ModuleType) -> None:
    torch.manual_seed(0)
    ours, baseline = MetricDiscriminator(4).eval(), usual.Discriminator(4, 0.3).eval()
    baseline.load_state_dict(ours.state_dict())
    assert_same(ours, baseline, *torch.rand(2, 2, 20, 33))


def test_its_kernel_is_named(usual: ModuleType) -> None:
    if usual.LAYER is None and usual.EXTENSION is None:
        assert usual.KERNEL == "our scan in its layout"
        with pytest.raises(ImportError, match="mamba_ssm"):
            usual.official_scan()
