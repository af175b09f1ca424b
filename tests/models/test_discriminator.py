"""The metric discriminator."""

from __future__ import annotations

import torch

from semamba.models.discriminator import MetricDiscriminator


def test_size_and_range() -> None:
    torch.manual_seed(0)
    judge = MetricDiscriminator()
    assert sum(parameter.numel() for parameter in judge.parameters()) == 181_650
    clean, enhanced = torch.rand(3, 40, 33), torch.rand(3, 40, 33)
    scores = judge(clean, enhanced)
    assert scores.shape == (3,) and (scores > 0).all() and (scores < 1).all()


def test_gradient_reaches_the_enhanced_signal() -> None:
    judge = MetricDiscriminator(channels=4)
    enhanced = torch.rand(2, 32, 33, requires_grad=True)
    (judge(torch.rand(2, 32, 33), enhanced) - 1).square().mean().backward()
    assert enhanced.grad is not None and enhanced.grad.isfinite().all() and enhanced.grad.abs().sum() > 0


def test_silence_and_the_smallest_input_are_finite() -> None:
    judge = MetricDiscriminator(channels=4)
    assert judge(torch.zeros(1, 16, 16), torch.zeros(1, 16, 16)).isfinite().all()


def test_weights_are_spectrally_normalised() -> None:
    torch.manual_seed(0)
    judge = MetricDiscriminator(channels=4).train()
    for _ in range(30):  # each step refines the estimate of the largest singular value
        judge(torch.rand(1, 32, 33), torch.rand(1, 32, 33))
    layers = [layer for layer in judge.modules() if hasattr(layer, "parametrizations")]
    norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in layers]
    assert len(norms) == 6
    torch.testing.assert_close(torch.stack(norms), torch.ones(6), atol=2e-2, rtol=0)
