"""Layers on the (B, T, F, C) layout against torch's own on (B, C, T, F)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from semamba.models.layers import (
    DenseBlock,
    FeatureConv,
    FeatureConvTranspose,
    FeaturePReLU,
    InstanceNorm,
    LearnableSigmoid,
    TimeConv,
)
from semamba.ops import using


def to_image(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2).contiguous()


def test_instance_norm_equals_torch() -> None:
    x = torch.randn(2, 7, 9, 5) * 0.1 + 5  # a large mean is where a careless variance loses its digits
    ours, theirs = InstanceNorm(5), nn.InstanceNorm2d(5, affine=True)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    exact = theirs.double()(to_image(x).double())
    torch.testing.assert_close(to_image(ours(x)).double(), exact, atol=2e-5, rtol=1e-5)


def test_instance_norm_of_silence_is_the_bias() -> None:
    norm = InstanceNorm(3)
    nn.init.normal_(norm.bias)
    x = torch.zeros(1, 4, 4, 3, requires_grad=True)
    y = norm(x)
    y.square().sum().backward()
    torch.testing.assert_close(y, norm.bias.expand_as(y))
    assert x.grad is not None and x.grad.isfinite().all()


def test_one_frame_and_one_bin() -> None:
    norm = InstanceNorm(3)
    torch.testing.assert_close(norm(torch.randn(1, 1, 1, 3)), torch.zeros(1, 1, 1, 3))


def test_prelu_has_a_slope_for_each_channel() -> None:
    prelu = FeaturePReLU(3)
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = -torch.ones(1, 2, 2, 3)
    torch.testing.assert_close(prelu(x), -prelu.weight.detach().expand(1, 2, 2, 3))


def test_learnable_sigmoid() -> None:
    sigmoid = LearnableSigmoid(4, beta=2.0)
    with torch.no_grad():
        sigmoid.slope.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(sigmoid(x), 2 / (1 + torch.exp(-sigmoid.slope * x)))


def test_convolutions_equal_torch_and_stay_contiguous() -> None:
    x = torch.randn(2, 6, 9, 4)
    down, up = FeatureConv(4, 8, (1, 3), stride=(1, 2)), FeatureConvTranspose(8, 4, (1, 3), stride=(1, 2))
    y = down(x)
    z = up(y)
    assert y.shape == (2, 6, 4, 8) and z.shape == x.shape
    assert y.is_contiguous() and z.is_contiguous()
    torch.testing.assert_close(to_image(y), nn.functional.conv2d(to_image(x), down.weight, down.bias, (1, 2)))
    expected = nn.functional.conv_transpose2d(to_image(y), up.weight, up.bias, (1, 2))
    torch.testing.assert_close(to_image(z), expected)


def test_dense_block_looks_fifteen_frames_to_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = DenseBlock(4, 4).eval()
    monkeypatch.setattr(InstanceNorm, "forward", lambda norm, x: x)  # its statistics reach everywhere
    x = torch.randn(1, 64, 5, 4)
    changed = x.clone()
    changed[:, 32] += 1
    with using("reference"):
        moved = (block(changed) - block(x)).abs().amax(dim=(0, 2, 3)).nonzero().squeeze(1)
    assert moved.tolist() == list(range(32 - 15, 32 + 16))


def test_time_conv_is_the_same_in_pieces() -> None:
    conv = TimeConv(3, 5, kernel=3, causal=True)
    x = torch.randn(2, 11, 3)
    whole, _ = conv(x)
    state, pieces = None, []
    for piece in x.split([1, 4, 2, 3, 1], dim=1):
        y, state = conv(piece, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    assert state is not None and state.shape == (2, 2, 3)


def test_time_conv_without_causality_is_centred() -> None:
    conv = TimeConv(3, 5, kernel=3, causal=False)
    x = torch.randn(2, 11, 3)
    y, state = conv(x)
    assert state is None
    expected = nn.functional.conv1d(x.transpose(1, 2), conv.weight, conv.bias, padding=1).transpose(1, 2)
    torch.testing.assert_close(y, expected)
