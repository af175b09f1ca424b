"""The Mamba layer (Gu & Dao 2023, figure 3) with the parameter names and shapes of mamba-ssm.

Letters: B batch, L length, d = d_model, D = expand * d_model inner channels, N = d_state, R = dt_rank, k = d_conv.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semamba.ops import selective_scan


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


class MambaState(NamedTuple):
    """What a Mamba layer remembers of the past."""

    conv: Tensor  # (B, k - 1, D): the last inputs of the short convolution
    scan: Tensor  # (B, D, N)


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
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse of softplus

    def forward(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Returns the output and the state after the last position read.

        Raises ValueError when a reversed layer is given a state: it would be the state of the future.
        """
        if state is not None and self.reverse:
            raise ValueError("a layer that reads backwards cannot continue from a state")
        cfg = self.config
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (B, L, D) each
        x, conv_state = self._short_convolution(x, state.conv if state is not None else None)
        delta, b, c = self.x_proj(x).split([cfg.dt_rank, cfg.d_state, cfg.d_state], dim=-1)
        y, scan_state = selective_scan(
            x,
            F.linear(delta, self.dt_proj.weight),
            -torch.exp(self.A_log.float()),
            b,
            c,
            self.D.float(),
            z=z,
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
            initial_state=state.scan if state is not None else None,
            reverse=self.reverse,
        )
        return self.out_proj(y), MambaState(conv_state, scan_state)

    def _short_convolution(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Depthwise convolution over the k - 1 previous positions and this one, then SiLU."""
        taps = self.config.d_conv - 1
        if self.reverse:
            padded = F.pad(x, (0, 0, 0, taps))
            weight = self.conv1d.weight.flip(-1)
        else:
            if past is None:
                past = x.new_zeros(x.shape[0], taps, x.shape[2])
            padded, weight = torch.cat([past, x], dim=1), self.conv1d.weight
        length = x.shape[1]
        y = self.conv1d.bias + sum(padded[:, i : i + length] * weight[:, 0, i] for i in range(taps + 1))
        state = padded[:, :taps] if self.reverse else padded[:, length:]
        return F.silu(y), state
