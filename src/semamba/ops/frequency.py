"""Residual layers along frequency, fused where a kernel can, composed elsewhere.

Letters: S positions (bands of one frame), C channels, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.ops import cpu_layers
from semamba.ops.dispatch import FUSED_CHANNELS, fused_backend


def frequency_conv(x: Tensor, norm: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """x + W [left | centre | right of silu(rms_norm(x))] + b, zeros beyond both ends.

    x: (..., S, C); norm: (C,); weight: (C, 3 C) as (out, tap * in); bias: (C,). Returns the shape of x.
    """
    weights = [norm, weight, bias]
    if _fused(x, weights):
        return cpu_layers.frequency_layer(x.reshape(-1, *x.shape[-2:]), weights, 0, eps).reshape(x.shape)
    y = F.pad(F.silu(F.rms_norm(x, norm.shape, norm, eps)), (0, 0, 1, 1))
    taps = torch.cat([y[..., :-2, :], y[..., 1:-1, :], y[..., 2:, :]], dim=-1)
    return x + F.linear(taps, weight, bias)


def frequency_attention(
    x: Tensor,
    norm: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    heads: int,
    eps: float = 1e-5,
) -> Tensor:
    """x + self-attention of rms_norm(x) across the S positions of every row.

    x: (..., S, C); norm: (C,); qkv_weight: (3 C, C) as q | k | v; out_weight: (C, C); C a multiple of heads.
    Raises ValueError where it is not.
    """
    if heads < 1 or x.shape[-1] % heads:
        raise ValueError(f"{x.shape[-1]} channels cannot be shared by {heads} heads")
    weights = [norm, qkv_weight, qkv_bias, out_weight, out_bias]
    if _fused(x, weights):
        return cpu_layers.frequency_layer(x.reshape(-1, *x.shape[-2:]), weights, heads, eps).reshape(x.shape)
    y = F.linear(F.rms_norm(x, norm.shape, norm, eps), qkv_weight, qkv_bias)
    # One leading axis: exporters know attention of four axes only.
    q, k, v = (
        y.reshape(-1, *y.shape[-2:]).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    )  # (rows, H, S, C / H) each
    y = F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)
    return x + F.linear(y, out_weight, out_bias).reshape(x.shape)


def _fused(x: Tensor, weights: list[Tensor]) -> bool:
    return fused_backend(x, weights) == "cpu" and x.shape[-1] <= FUSED_CHANNELS and x.numel() > 0
