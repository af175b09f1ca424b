"""The GPU kernels as PyTorch operators, `semamba::gpu_scan` and `semamba::gpu_conv`, and Mamba layers composed of them.

Not the operators of the C++ kernels: these take low precision as it is, two directions at once, and any axis.
Letters: G directions (1 or 2), P outer sequences, L steps, Q inner sequences, D inner channels, N state size, R rank of
delta, k taps; S = G P Q sequences in all. triton is imported at the first call.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.ops.layout import rows

if TYPE_CHECKING:
    from semamba.ops.block import BlockWeights

CHUNK = 8  # steps between two stored states; the backward pass holds one state more in registers


@cache
def available() -> bool:
    """Whether the kernels can be loaded; they run on GPUs, and anywhere in Triton's interpreter."""
    return importlib.util.find_spec("triton") is not None


@cache
def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


# As for the C++ library: a graph of torch.compile is made for the machine it is made on.
available._dynamo_marked_constant = True  # type: ignore[attr-defined]
interpreted._dynamo_marked_constant = True  # type: ignore[attr-defined]


def why_unavailable() -> str:
    """One line; empty where the kernels can run."""
    if not available():
        return "the GPU kernels need triton: pip install 'semamba[triton]'"
    return "" if torch.cuda.is_available() else "the GPU kernels need a GPU that this torch can use"


# ------------------------------------------------------------------------------------------------------------- the scan


@torch.library.custom_op("semamba::gpu_scan", mutates_args=())
def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y like u, contiguous; final state (S, D, N); with `keep` the state before every chunk, for the backward pass.

    u, delta, z: (G, P, L, Q, D); A: (G, D, N); B, C: (G, P, L, Q, N); D, delta_bias: (G, D); initial_state: (S, D, N).
    The second direction reads against the first.
    """
    from semamba.ops import triton

    y, final, checkpoints = _scan_outputs(u, A, keep)
    if y.numel() == 0:
        return y, final.zero_() if initial_state is None else final.copy_(initial_state), checkpoints.zero_()
    inputs, initial = _scan_inputs(u, delta, A, B, C, D, z, delta_bias), initial_state
    initial = None if initial is None else initial.contiguous()
    triton.scan_forward(inputs, initial, delta_softplus, reverse, y, final, checkpoints, keep)
    return y, final, checkpoints


@scan.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse, keep):  # type: ignore[no-untyped-def]
    return _scan_outputs(u, A, keep)


def _scan_outputs(u: Tensor, A: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    G, P, L, Q, D = u.shape
    N, S = A.shape[-1], G * P * Q
    checkpoints = (S, -(-L // CHUNK), N, D) if keep else (0,)
    return (
        u.new_empty(u.shape),
        u.new_empty(S, D, N, dtype=torch.float32),
        u.new_empty(checkpoints, dtype=torch.float32),
    )


def _scan_inputs(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Strided where the kernels take strides, contiguous where they do not.

    B and C are small and every thread reads them whole: they are widened once, here, instead of at every step.
    """
    u, delta, A, B, C, D, z, bias = tensors
    B, C = (None if t is None else t.float() for t in (B, C))
    strided = [None if t is None else rows(t) for t in (u, delta, B, C, z)]
    A, D, bias = (None if t is None else t.contiguous() for t in (A, D, bias))
    return strided[0], strided[1], A, strided[2], strided[3], D, strided[4], bias


@torch.library.custom_op("semamba::gpu_scan_backward", mutates_args=())
def scan_backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    checkpoints: Tensor,
    dy: Tensor,
    dfinal: Tensor,
) -> list[Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias, initial_state; zero-size where the input is absent."""
    from semamba.ops import triton

    if u.numel() == 0:
        return [*(g.zero_() for g in _scan_gradient_shapes(u, delta, A, B, C, D, z, delta_bias)), dfinal.clone()]
    inputs = _scan_inputs(u, delta, A, B, C, D, z, delta_bias)
    gradients = triton.scan_backward(inputs, delta_softplus, reverse, checkpoints, dy.contiguous(), dfinal)
    gradients[3:5] = gradients[3].to(B.dtype), gradients[4].to(C.dtype)
    return gradients


@scan_backward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, checkpoints, dy, dfinal):  # type: ignore[no-untyped-def]
    return [*_scan_gradient_shapes(u, delta, A, B, C, D, z, delta_bias), dfinal.new_empty(dfinal.shape)]


def _scan_gradient_shapes(*tensors: Tensor | None) -> list[Tensor]:
    u = tensors[0]
    assert u is not None
    return [u.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors]


def _scan_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.softplus, initial, ctx.reverse, _ = inputs
    ctx.initial_dtype = None if initial is None else initial.dtype
    ctx.save_for_backward(*tensors, output[2])


def _scan_gradients(ctx, dy, dfinal, _):  # type: ignore[no-untyped-def]
    *tensors, checkpoints = ctx.saved_tensors
    out = scan_backward(*tensors, ctx.softplus, ctx.reverse, checkpoints, dy, dfinal)
    gradients = [g if t is not None else None for t, g in zip(tensors, out[:8], strict=True)]
    return *gradients, None, None if ctx.initial_dtype is None else out[8].to(ctx.initial_dtype), None, None


scan.register_autograd(_scan_gradients, setup_context=_scan_setup)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """`semamba.ops.selective_scan` after its checks: one direction, sequences (B, L, D)."""
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*tensors, initial_state))
    u, delta, B, C = (t[None, :, :, None] for t in (u, delta, B, C))
    z = None if z is None else z[None, :, :, None]
    D, delta_bias = (None if t is None else t[None] for t in (D, delta_bias))
    y, final, _ = scan(u, delta, A[None], B, C, D, z, delta_bias, delta_softplus, initial_state, reverse, keep)
    return y[0, :, :, 0], final


# ------------------------------------------------------------------------------------------------ the short convolution


@torch.library.custom_op("semamba::gpu_conv", mutates_args=())
def conv(x: Tensor, weight: Tensor, bias: Tensor, past: Tensor | None, reverse: bool) -> Tensor:
    """silu of the depthwise convolution over this position and the k - 1 read before it; like x, contiguous.

    x: (G, P, L, Q, D); weight: (G, D, k); bias: (G, D); past: (S, k - 1, D), inputs before the first in reading order.
    """
    from semamba.ops import triton

    if x.numel() == 0:
        return x.new_empty(x.shape)
    past = None if past is None or weight.shape[-1] == 1 else past.contiguous()
    return triton.conv_forward(rows(x), weight.contiguous(), bias.contiguous(), past, reverse)


@conv.register_fake
def _(x, weight, bias, past, reverse):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


@torch.library.custom_op("semamba::gpu_conv_backward", mutates_args=())
def conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor, past: Tensor | None, reverse: bool, dy: Tensor
) -> list[Tensor]:
    """Gradients of x, weight, bias and past (zero-size without one)."""
    from semamba.ops import triton

    if x.numel() == 0:
        return [t.new_zeros(t.shape) for t in (x, weight, bias)] + [x.new_zeros(0 if past is None else past.shape)]
    taken = None if past is None or weight.shape[-1] == 1 else past.contiguous()
    tensors = rows(x), weight.contiguous(), bias.contiguous(), taken, reverse, dy.contiguous()
    *gradients, dpast = triton.conv_backward(*tensors)
    return [*gradients, dpast if past is None or taken is not None else past.new_zeros(past.shape)]


@conv_backward.register_fake
def _(x, weight, bias, past, reverse, dy):  # type: ignore[no-untyped-def]
    dpast = x.new_empty(0) if past is None else past.new_empty(past.shape)
    return [*(t.new_empty(t.shape) for t in (x, weight, bias)), dpast]


def _conv_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _conv_gradients(ctx, dy):  # type: ignore[no-untyped-def]
    x, weight, bias, past = ctx.saved_tensors
    *gradients, dpast = conv_backward(x, weight, bias, past, ctx.reverse, dy)
    return *gradients, None if past is None else dpast, None


conv.register_autograd(_conv_gradients, setup_context=_conv_setup)


# ------------------------------------------------------------------------------------------------------ layers of Mamba


def mamba_layers(
    x: Tensor,
    layers: Sequence[BlockWeights],
    past: Tensor | None,
    initial: Tensor | None,
    eps: float,
    residual: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer, or two of which the second reads against the first, on x (P, L, Q, d), read in place along L.

    Products of both layers are one product each. Returns y (G, P, L, Q, d), the last inputs of the convolution of the
    first layer (P Q, k - 1, D), and the final states (S, D, N). `past` and `initial` are those of one layer.
    """
    first, G = layers[0], len(layers)
    stacked = [torch.stack(tensors) for tensors in zip(*(layer[1:] for layer in layers), strict=True)]
    in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A_log, skip, out_proj = stacked  # (G, ...)
    normed = x
    if first.norm is not None:  # the root mean square is the same for both, the weights go into the product
        normed = F.rms_norm(x, x.shape[-1:], None, eps)
        in_proj = in_proj * torch.stack([layer.norm for layer in layers if layer.norm is not None])[:, None]
    inner, rank, n = skip.shape[1], dt_proj.shape[2], A_log.shape[2]
    u, z = F.linear(normed, in_proj.flatten(0, 1)).unflatten(-1, (G, 2, inner)).movedim(-3, 0).unbind(-2)
    last = _last_inputs(u[0], conv_weight.shape[-1] - 1, past, reverse)
    u = conv(u, conv_weight[:, :, 0], conv_bias, past, reverse)  # (G, P, L, Q, D), z alike
    delta, b, c = (u.flatten(1, 3) @ x_proj.mT).split([rank, n, n], dim=-1)
    delta, b, c = (t.unflatten(1, x.shape[:3]) for t in (delta @ dt_proj.mT, b, c))
    tensors = (u, delta, -torch.exp(A_log.float()), b, c, skip.float(), z, dt_bias.float())
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*tensors, initial))
    y, final, _ = scan(*tensors, True, initial, reverse, keep)
    y = (y.flatten(1, 3) @ out_proj.mT).unflatten(1, x.shape[:3])
    return x + y if residual else y, last, final


def _last_inputs(u: Tensor, count: int, past: Tensor | None, reverse: bool) -> Tensor:
    """The last `count` rows read of u (P, L, Q, D), or of `past` before it, in reading order: (P Q, count, D)."""
    length = u.shape[1]
    rows = u[:, : min(count, length)].flip(1) if reverse else u[:, max(length - count, 0) :]
    rows = rows.transpose(1, 2).flatten(0, 1)
    if length >= count:
        return rows
    if past is None:
        past = rows.new_zeros(rows.shape[0], count, rows.shape[2])
    return torch.cat([past[:, length:].to(rows.dtype), rows], dim=1)
