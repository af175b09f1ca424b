"""The residual Mamba block, x + Mamba(RMSNorm(x)), over any axis of a tensor: fused where a kernel can, else composed.

Letters: d model channels, D inner channels, N state size, R rank of delta, k taps of the short convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.ops import cpu_layers, gpu
from semamba.ops.dispatch import FUSED_CHANNELS, backend_for, fused_backend, selective_scan
from semamba.ops.memory import empty


class BlockWeights(NamedTuple):
    """Tensors of a Mamba layer in mamba-ssm's shapes, and the norm before it."""

    norm: Tensor | None  # (d,)
    in_proj: Tensor  # (2 D, d)
    conv_weight: Tensor  # (D, 1, k)
    conv_bias: Tensor  # (D,)
    x_proj: Tensor  # (R + 2 N, D)
    dt_proj: Tensor  # (D, R)
    dt_bias: Tensor  # (D,)
    A_log: Tensor  # (D, N)
    D: Tensor  # (D,)
    out_proj: Tensor  # (d, D)


class MambaState(NamedTuple):
    """What a Mamba layer remembers of the past."""

    conv: Tensor  # (B, k - 1, D): the last inputs of the short convolution
    scan: Tensor  # (B, D, N)


def mamba_block(
    x: Tensor,
    weights: BlockWeights,
    state: MambaState | None = None,
    reverse: bool = False,
    residual: bool = True,
    eps: float = 1e-5,
) -> tuple[Tensor, MambaState]:
    """x (outer, L, inner, d) -> the same shape; outer * inner independent sequences run along L.

    `weights.norm` None leaves the norm out, `residual=False` the addition of x. A given `state` continues from it,
    and the returned one carries no gradient. Raises ValueError for a state with `reverse`: it would be the state of the
    future, and for shapes that do not fit.
    """
    _check(x, weights, state, reverse)
    if backend_for(x) == "triton":
        conv, scan = state if state is not None else (None, None)
        y, conv, scan = gpu.mamba_layers(x, [weights], conv, scan, eps, residual, reverse)
        return y[0], MambaState(conv.detach(), scan.detach())
    tensors = [t for t in (*weights, *(state or ())) if t is not None]
    keep = torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors))
    fused = fused_backend(x, tensors) == "cpu" and x.shape[-1] <= FUSED_CHANNELS
    if not fused or x.numel() == 0 or (keep and state is not None):
        return _composed(x, weights, state, reverse, residual, eps)
    conv, scan = state if state is not None else (None, None)
    normalise = weights.norm is not None
    options = (eps, normalise, residual, reverse, keep)
    y, conv, scan, _ = cpu_layers.mamba_block(x.contiguous(), _ordered(weights), conv, scan, *options)
    return y, MambaState(conv.detach(), scan.detach())


def fused_pair(
    x: Tensor, forwards: BlockWeights, backwards: BlockWeights, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """x + W [forwards(x) | backwards(x)] + b with the pair of `mamba_pair`; weight W (d, 2 d), bias b (d,).

    Without gradients on the CPU the map W is taken into the pair's own output maps, since nothing lies between them:
    with W = [V | U], layers f and g and their output maps F and G it is (1 + V + U) x + b + (V F) f(x) + (U G) g(x).
    """
    tensors = [t for t in (*forwards, *backwards, weight, bias) if t is not None]
    keep = torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors))
    if keep or fused_backend(x, tensors) != "cpu" or x.shape[-1] > FUSED_CHANNELS or x.numel() == 0:
        return x + F.linear(torch.cat(mamba_pair(x, forwards, backwards, eps), dim=-1), weight, bias)
    for layer in (forwards, backwards):
        _check(x, layer, None, False)
    rows, halves = x.contiguous(), weight.chunk(2, dim=1)
    y = empty(*x.shape)
    with torch.autocast("cpu", enabled=False):  # the kernel reads float32
        through = torch.eye(weight.shape[0], dtype=x.dtype, device=x.device) + halves[0] + halves[1]
        torch.addmm(bias, rows.view(-1, x.shape[-1]), through.T, out=y.view(-1, x.shape[-1]))
        for weights, half, reverse in ((forwards, halves[0], False), (backwards, halves[1], True)):
            folded = weights._replace(out_proj=half @ weights.out_proj)
            cpu_layers.mamba_block_add(y, rows, _ordered(folded), eps, weights.norm is not None, reverse)
    return y


def _ordered(weights: BlockWeights) -> list[Tensor]:
    """What the C++ kernel takes: A itself, and an empty tensor for no norm."""
    norm = weights.norm if weights.norm is not None else weights.in_proj.new_empty(0)
    return [norm, *weights[1:7], -torch.exp(weights.A_log.float()), *weights[8:]]


def mamba_pair(x: Tensor, forwards: BlockWeights, backwards: BlockWeights, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """`mamba_block` of x with two sets of weights of equal sizes, the second reading backwards; one pass on a GPU."""
    if backend_for(x) == "triton" and (forwards.norm is None) == (backwards.norm is None):
        for weights in (forwards, backwards):
            _check(x, weights, None, False)
        y = gpu.mamba_layers(x, [forwards, backwards], None, None, eps, True, False)[0]
        return y[0], y[1]
    return mamba_block(x, forwards, eps=eps)[0], mamba_block(x, backwards, reverse=True, eps=eps)[0]


def _check(x: Tensor, weights: BlockWeights, state: MambaState | None, reverse: bool) -> None:
    """The kernel reads memory by these sizes."""
    if x.dim() != 4 or x.shape[-1] != weights.in_proj.shape[1]:
        raise ValueError(f"x must be (outer, L, inner, {weights.in_proj.shape[1]}), got {tuple(x.shape)}")
    if state is None:
        return
    if reverse:
        raise ValueError("a layer that reads backwards cannot continue from a state")
    sequences, (inner, n) = x.shape[0] * x.shape[2], weights.A_log.shape
    for name, tensor, shape in (
        ("conv", state.conv, (sequences, weights.conv_weight.shape[-1] - 1, inner)),
        ("scan", state.scan, (sequences, inner, n)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"state.{name} must be {shape} to go with x {tuple(x.shape)}, got {tuple(tensor.shape)}")


def _composed(
    x: Tensor, weights: BlockWeights, state: MambaState | None, reverse: bool, residual: bool, eps: float
) -> tuple[Tensor, MambaState]:
    """The same in PyTorch around the scan."""
    outer, length, inner, d = x.shape
    sequences = x.transpose(1, 2).reshape(outer * inner, length, d)
    y = sequences
    if weights.norm is not None:
        y = F.rms_norm(y, weights.norm.shape, weights.norm, eps)
    u, z = F.linear(y, weights.in_proj).chunk(2, dim=-1)  # (B, L, D) each
    u, conv = _short_convolution(u, weights, state, reverse)
    rank, n = weights.dt_proj.shape[1], weights.A_log.shape[1]
    delta, b, c = F.linear(u, weights.x_proj).split([rank, n, n], dim=-1)
    y, scan = selective_scan(
        u,
        F.linear(delta, weights.dt_proj),
        -torch.exp(weights.A_log.float()),
        b,
        c,
        weights.D.float(),
        z=z,
        delta_bias=weights.dt_bias.float(),
        delta_softplus=True,
        initial_state=state.scan if state is not None else None,
        reverse=reverse,
    )
    y = F.linear(y, weights.out_proj)
    if residual:
        y = sequences + y
    return y.reshape(outer, inner, length, d).transpose(1, 2), MambaState(conv.detach(), scan.detach())


def _short_convolution(
    x: Tensor, weights: BlockWeights, state: MambaState | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution of this position and the k - 1 read before it, then SiLU; and what the next call needs."""
    length, taps = x.shape[1], weights.conv_weight.shape[-1]
    past = state.conv if state is not None else x.new_zeros(x.shape[0], taps - 1, x.shape[2])
    padded = torch.cat([x, past] if reverse else [past, x], dim=1)
    order = range(taps - 1, -1, -1) if reverse else range(taps)
    y = weights.conv_bias + sum(padded[:, i : i + length] * weights.conv_weight[:, 0, k] for i, k in enumerate(order))
    # Reading backwards, the last positions read are the first ones, in reading order.
    return F.silu(y), padded[:, : taps - 1].flip(1) if reverse else padded[:, length:]
