"""The selective scan as one loop that exporters can write down: ONNX's Scan, whatever the length of the sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.ops import reference


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
    """See `semamba.ops.selective_scan`; float32 only. A sequence of one position needs no loop."""
    if u.shape[1] == 1:
        return reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse)
    from torch._higher_order_ops.scan import scan

    rates = A.T.contiguous()  # (N, D)

    # The state is (B, N, D) here: products broadcast along whole rows, which runtimes do ten times as fast.
    def step(h: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        size, drive, b, c = inputs  # (B, D), (B, D), (B, N), (B, N)
        h = torch.exp(size[:, None] * rates) * h + drive[:, None] * b[:, :, None]
        return h.clone(), torch.matmul(c[:, None], h).squeeze(1)  # the loop may not return one tensor twice

    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = F.softplus(delta)
    h = u.new_zeros(u.shape[0], *rates.shape) if initial_state is None else initial_state.transpose(1, 2).contiguous()
    sequences = tuple(tensor.transpose(0, 1) for tensor in (delta, delta * u, B, C))
    h, y = scan(step, h, sequences, dim=0, reverse=reverse)
    y = y.transpose(0, 1)
    if D is not None:
        y = y + u * D
    if z is not None:
        y = y * F.silu(z)
    return y, h.transpose(1, 2)
