"""The selective scan in plain PyTorch: the oracle that every kernel is tested against.

Letters: B batch, L length, D inner channels, N state size; Δ = delta after bias and softplus.

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t        (Gu & Dao 2023, eq. 2 with the discretisation of their eq. 4)
    y_t = (C_t · h_t + D u_t) * silu(z_t)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """See `semamba.ops.selective_scan`. Computes in float32, or float64 when the input is."""
    kind = torch.promote_types(u.dtype, torch.float32)
    x, step, matrix, b, c = (t.to(kind) for t in (u, delta, A, B, C))
    if delta_bias is not None:
        step = step + delta_bias.to(kind)
    if delta_softplus:
        step = F.softplus(step)
    h = x.new_zeros(x.shape[0], *matrix.shape) if initial_state is None else initial_state.to(kind)  # (B, D, N)
    outputs: list[Tensor] = []
    order = range(x.shape[1])
    for t in reversed(order) if reverse else order:
        decay = torch.exp(step[:, t, :, None] * matrix)  # (B, D, N)
        h = decay * h + (step[:, t] * x[:, t])[:, :, None] * b[:, t, None, :]
        outputs.append((h * c[:, t, None, :]).sum(-1))  # (B, D)
    if reverse:
        outputs.reverse()
    y = torch.stack(outputs, dim=1) if outputs else torch.zeros_like(x)
    if D is not None:
        y = y + x * D.to(kind)
    if z is not None:
        y = y * F.silu(z.to(kind))
    return y.to(u.dtype), h.to(torch.promote_types(h.dtype, torch.float32))
