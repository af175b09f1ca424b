"""Layers of the convolutional codec on features (B, T, F, C): fused where a kernel can, else composed.

Letters: B batch, T frames, F bins, C channels, O output channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.ops import cpu, cpu_features
from semamba.ops.dispatch import fused_backend


def instance_norm(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None = None, eps: float = 1e-5, owned: bool = False
) -> Tensor:
    """Zero mean and unit variance over T and F for every item and channel, an affine map, and PReLU with `slope` (C,).

    x: (B, T, F, C); weight, bias: (C,). A constant input gives the bias. `owned` allows to overwrite x.
    """
    weights = [weight, bias] if slope is None else [weight, bias, slope]
    if fused_backend(x, weights) == "cpu" and x.numel() > 0:
        flat = x.flatten(1, 2)
        if owned and x.is_contiguous() and not _keeps(x, *weights):
            cpu_features.instance_norm_(flat, weight, bias, slope, eps)
            return x
        return cpu_features.instance_norm(flat, weight, bias, slope, eps)[0].view(x.shape)
    flat = x.flatten(1, 2)  # (B, T F, C)
    centred = flat - flat.mean(1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + eps) * weight
    y = torch.addcmul(bias, centred, scale).view(x.shape)
    return y if slope is None else prelu(y, slope)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """PReLU with one slope for each of the channels on the last axis."""
    return F.prelu(x.movedim(-1, 1), slope).movedim(1, -1)


def can_join(groups: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    """Whether `dense_layer` has a kernel for these tensors: float32 on the CPU, no gradient wanted."""
    unequal = any(group.shape != groups[0].shape for group in groups)
    if len(groups) > cpu_features.MAX_GROUPS or unequal or groups[0].numel() == 0 or _keeps(*groups, *weights):
        return False
    return fused_backend(groups[0], (*groups[1:], *weights)) == "cpu"


def dense_layer(
    groups: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    slope: Tensor,
    dilation: int,
    eps: float = 1e-5,
) -> Tensor:
    """3 x 3 convolution of the groups (B, T, F, C) side by side, dilated along time, then `instance_norm` with PReLU.

    weight: (O, groups C, 3, 3); zeros beyond the edges. Returns (B, T, F, O).
    """
    weights = (weight, bias, norm_weight, norm_bias, slope)
    if can_join(groups, weights):
        return cpu_features.dense_layer(list(groups), *weights, dilation, eps)
    x = torch.cat(list(groups), dim=-1)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=(dilation, 1), dilation=(dilation, 1)).permute(0, 2, 3, 1)
    return instance_norm(y, norm_weight, norm_bias, slope, eps, owned=True)


def line_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    slope: Tensor,
    stride: int = 1,
    transposed: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """A convolution along frequency without padding, or a transposed one, then `instance_norm` with PReLU.

    x: (B, T, F, C); weight: (O, C, 1, taps), transposed (C, O, 1, taps). Returns (B, T, G, O).
    """
    weights, outputs = (weight, bias, norm_weight, norm_bias, slope), norm_weight.shape[0]
    if can_join([x], weights) and outputs % cpu.lanes() == 0:
        return cpu_features.line_layer(x, *weights, stride, transposed, eps)
    convolve = F.conv_transpose2d if transposed else F.conv2d
    y = convolve(x.permute(0, 3, 1, 2), weight, bias, stride=(1, stride)).permute(0, 2, 3, 1)
    return instance_norm(y, norm_weight, norm_bias, slope, eps, owned=True)


def _keeps(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
