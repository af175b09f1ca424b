"""The Mamba layer (Gu & Dao 2023, figure 3) with the parameter names and shapes of mamba-ssm.

Letters: B batch, L length, d = d_model, D = expand * d_model inner channels, N = d_state, R = dt_rank, k = d_conv.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semamba.ops import BlockWeights, MambaState, fused_pair, mamba_block, mamba_pair

__all__ = ["Mamba", "MambaConfig", "MambaState", "RMSNorm"]


@dataclass(frozen=True)
class MambaConfig:
    d_model: int
    expand: int = 2
    d_state: int = 16
    d_conv: int = 4

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def dt_rank(self) -> int:
        return math.ceil(self.d_model / 16)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Mamba(nn.Module):
    """(B, L, d) -> (B, L, d). `reverse=True` reads the sequence from its end, without a flip."""

    def __init__(self, config: MambaConfig, reverse: bool = False) -> None:
        super().__init__()
        self.config, self.reverse = config, reverse
        inner, rank, n = config.d_inner, config.dt_rank, config.d_state
        self.in_proj = nn.Linear(config.d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, config.d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * n, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1, n + 1, dtype=torch.float32).log().repeat(inner, 1))  # S4D-real
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, config.d_model, bias=False)
        self._reset_delta()

    def _reset_delta(self, low: float = 1e-3, high: float = 0.1) -> None:
        """softplus(bias) log-uniform in [low, high] (Mamba, section 3.6)."""
        bound = self.config.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        step = torch.exp(torch.rand(self.config.d_inner) * math.log(high / low) + math.log(low))
        with torch.no_grad():
            self.dt_proj.bias.copy_(inverse_softplus(step))

    def forward(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Returns the output and the state after the last position read; the state carries no gradient.

        Raises ValueError when a reversed layer is given a state: it would be the state of the future.
        """
        y, state = mamba_block(x[:, :, None], self._weights(None), state, self.reverse, residual=False)
        return y[:, :, 0], state

    def residual(
        self, x: Tensor, norm: RMSNorm, axis: int, state: MambaState | None = None
    ) -> tuple[Tensor, MambaState]:
        """x + self(norm(x)) along axis 1 (time) or 2 (frequency) of (B, T, F, d), in one fused pass where possible.

        The state's batch is B * F along time and B * T along frequency.
        """
        weights = self._weights(norm.weight)
        if axis == 1:
            return mamba_block(x, weights, state, self.reverse, eps=norm.eps)
        y, state = mamba_block(x.flatten(0, 1)[:, :, None], weights, state, self.reverse, eps=norm.eps)
        return y.reshape(x.shape), state

    def _weights(self, norm: Tensor | None) -> BlockWeights:
        bias = self.conv1d.bias
        assert bias is not None  # the layer is made with one
        return BlockWeights(
            norm,
            self.in_proj.weight,
            self.conv1d.weight,
            bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
            self.out_proj.weight,
        )


def residual_pair(
    x: Tensor, axis: int, forwards: tuple[Mamba, RMSNorm], backwards: tuple[Mamba, RMSNorm]
) -> tuple[Tensor, Tensor]:
    """`residual` of a layer and of one that reads backwards, in one pass where a kernel can."""
    (first, norm), (second, other) = forwards, backwards
    rows = x if axis == 1 else x.flatten(0, 1)[:, :, None]
    y, z = mamba_pair(rows, first._weights(norm.weight), second._weights(other.weight), norm.eps)
    return y.reshape(x.shape), z.reshape(x.shape)


def joined_pair(
    x: Tensor, axis: int, forwards: tuple[Mamba, RMSNorm], backwards: tuple[Mamba, RMSNorm], join: nn.Linear
) -> Tensor:
    """x + join of `residual_pair`, joined inside the pair where a kernel can."""
    (first, norm), (second, other) = forwards, backwards
    rows = x if axis == 1 else x.flatten(0, 1)[:, :, None]
    weights = first._weights(norm.weight), second._weights(other.weight), join.weight, join.bias
    return fused_pair(rows, *weights, norm.eps).reshape(x.shape)


def inverse_softplus(y: Tensor) -> Tensor:
    """x with softplus(x) = y, for y > 0."""
    return y + torch.log(-torch.expm1(-y))
