"""The fused layers of the C++ library as PyTorch operators: `semamba::mamba_block` and `semamba::frequency_layer`."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from semamba.ops.cpu import address, checkpoint_shape, expect, fields, loaded
from semamba.ops.memory import empty, fresh

# ------------------------------------------------------------------------------------------------------ the fused block


class _BlockArgs(ctypes.Structure):
    _fields_ = [
        *fields(
            "outer length inner d D N R taps reverse residual threads",
            "x norm in_proj conv_weight conv_bias x_proj dt_proj dt_bias A skip out_proj conv_state scan_state base "
            "y final_conv final_scan checkpoints",
        ),
        ("eps", ctypes.c_double),
        *fields(
            "",
            "dy dx dnorm din_proj dconv_weight dconv_bias dx_proj ddt_proj ddt_bias dA dskip dout_proj",
        ),
    ]


_WEIGHTS = (
    *("norm", "in_proj", "conv_weight", "conv_bias", "x_proj"),
    *("dt_proj", "dt_bias", "A", "skip", "out_proj"),
)


@torch.library.custom_op("semamba::mamba_block", mutates_args=(), device_types="cpu")
def mamba_block(
    x: Tensor,
    weights: list[Tensor],
    conv_state: Tensor | None,
    scan_state: Tensor | None,
    eps: float,
    normalise: bool,
    residual: bool,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (outer, L, inner, d) contiguous -> y, final convolution and scan states, chunk states when `keep`."""
    args, held = _block_args(x, weights, eps, normalise, residual, reverse)
    sequences = x.shape[0] * x.shape[2]
    y = empty(*x.shape)
    conv = fresh((sequences, args.taps - 1, args.D))
    state = fresh((sequences, args.D, args.N))
    checkpoints = fresh(checkpoint_shape(sequences, x.shape[1], args.D, args.N) if keep else (0,))
    past = [None if t is None else t.contiguous() for t in (conv_state, scan_state)]
    args.conv_state, args.scan_state = address(past[0]), address(past[1])
    args.base = args.x if residual else None
    args.y, args.final_conv, args.final_scan = address(y), address(conv), address(state)
    args.checkpoints = address(checkpoints) if keep else None
    loaded().semamba_block_forward(ctypes.byref(args))
    del held
    return y, conv, state, checkpoints


@mamba_block.register_fake
def _(x, weights, conv_state, scan_state, eps, normalise, residual, reverse, keep):  # type: ignore[no-untyped-def]
    sequences, (D, N), taps = x.shape[0] * x.shape[2], weights[7].shape, weights[2].shape[-1]
    shape = checkpoint_shape(sequences, x.shape[1], D, N) if keep else (0,)
    return x.new_empty(x.shape), x.new_empty(sequences, taps - 1, D), x.new_empty(sequences, D, N), x.new_empty(shape)


@torch.library.custom_op("semamba::mamba_block_backward", mutates_args=(), device_types="cpu")
def mamba_block_backward(
    x: Tensor,
    weights: list[Tensor],
    eps: float,
    normalise: bool,
    residual: bool,
    reverse: bool,
    checkpoints: Tensor,
    dy: Tensor,
) -> list[Tensor]:
    """Gradients of x and of every weight."""
    args, held = _block_args(x, weights, eps, normalise, residual, reverse)
    dy = dy.contiguous()
    gradients = [fresh(t.shape) for t in (x, *weights)]
    for name, gradient in zip(("x", *_WEIGHTS), gradients, strict=True):
        setattr(args, f"d{name}", address(gradient))
    args.dy, args.checkpoints = address(dy), address(checkpoints)
    if not normalise:
        gradients[1].zero_()
    loaded().semamba_block_backward(ctypes.byref(args))
    del held
    return gradients


@mamba_block_backward.register_fake
def _(x, weights, eps, normalise, residual, reverse, checkpoints, dy):  # type: ignore[no-untyped-def]
    return [t.new_empty(t.shape) for t in (x, *weights)]


@torch.library.custom_op("semamba::mamba_block_add", mutates_args=("y",), device_types="cpu")
def mamba_block_add(y: Tensor, x: Tensor, weights: list[Tensor], eps: float, normalise: bool, reverse: bool) -> None:
    """y += layer(norm(x)) for y contiguous and shaped like x; no states, no gradient."""
    args, held = _block_args(x, weights, eps, normalise, False, reverse)
    args.base = args.y = address(y)
    loaded().semamba_block_forward(ctypes.byref(args))
    del held


def _block_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    x, weights, _, _, *ctx.options, _ = inputs
    ctx.save_for_backward(x, *weights, output[3])


def _block_gradients(ctx, dy, *_):  # type: ignore[no-untyped-def]
    x, *weights, checkpoints = ctx.saved_tensors
    dx, *gradients = mamba_block_backward(x, weights, *ctx.options, checkpoints, dy)
    return dx, gradients, None, None, None, None, None, None, None


mamba_block.register_autograd(_block_gradients, setup_context=_block_setup)


def _block_args(x, weights, eps, normalise, residual, reverse):  # type: ignore[no-untyped-def]
    x, weights = x.contiguous(), [t.contiguous() for t in weights]
    outer, length, inner, d = x.shape
    (D, N), R, taps = weights[7].shape, weights[5].shape[1], weights[2].shape[-1]
    shapes = [
        (d if normalise else 0,),
        (2 * D, d),
        (D, 1, taps),
        (D,),
        (R + 2 * N, D),
        (D, R),
        (D,),
        (D, N),
        (D,),
        (d, D),
    ]
    for name, tensor, shape in zip(("x", *_WEIGHTS), (x, *weights), (x.shape, *shapes), strict=True):
        expect(name, tensor, *shape)
    args = _BlockArgs(outer=outer, length=length, inner=inner, d=d, D=D, N=N, R=R, taps=taps)
    args.reverse, args.residual = reverse, residual
    args.threads, args.eps, args.x = torch.get_num_threads(), eps, address(x)
    for name, tensor in zip(_WEIGHTS, weights, strict=True):
        setattr(args, name, address(tensor))
    if not normalise:
        args.norm = None
    return args, (x, weights)


# ------------------------------------------------------------------------------------ residual layers along frequency


class _FrequencyArgs(ctypes.Structure):
    _fields_ = [
        *fields("rows S C heads threads", "x norm weight bias out_weight out_bias y"),
        ("eps", ctypes.c_double),
        *fields("", "dy dx dnorm dweight dbias dout_weight dout_bias"),
    ]


_FREQUENCY_WEIGHTS = ("norm", "weight", "bias", "out_weight", "out_bias")


@torch.library.custom_op("semamba::frequency_layer", mutates_args=(), device_types="cpu")
def frequency_layer(x: Tensor, weights: list[Tensor], heads: int, eps: float) -> Tensor:
    """x (rows, S, C) -> the same: attention with five weights and `heads`, convolution with three and heads 0."""
    args, held = _frequency_args(x, weights, heads, eps)
    y = empty(*x.shape)
    args.y = address(y)
    library = loaded()
    (library.semamba_attention_forward if heads else library.semamba_conv_forward)(ctypes.byref(args))
    del held
    return y


@frequency_layer.register_fake
def _(x, weights, heads, eps):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


@torch.library.custom_op("semamba::frequency_layer_backward", mutates_args=(), device_types="cpu")
def frequency_layer_backward(x: Tensor, weights: list[Tensor], heads: int, eps: float, dy: Tensor) -> list[Tensor]:
    """Gradients of x and of every weight."""
    args, held = _frequency_args(x, weights, heads, eps)
    dy = dy.contiguous()
    gradients = [fresh(t.shape) for t in (x, *weights)]
    for name, gradient in zip(("x", *_FREQUENCY_WEIGHTS), gradients, strict=False):
        setattr(args, f"d{name}", address(gradient))
    args.dy = address(dy)
    library = loaded()
    (library.semamba_attention_backward if heads else library.semamba_conv_backward)(ctypes.byref(args))
    del held
    return gradients


@frequency_layer_backward.register_fake
def _(x, weights, heads, eps, dy):  # type: ignore[no-untyped-def]
    return [t.new_empty(t.shape) for t in (x, *weights)]


def _frequency_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    x, weights, *ctx.options = inputs
    ctx.save_for_backward(x, *weights)


def _frequency_gradients(ctx, dy):  # type: ignore[no-untyped-def]
    x, *weights = ctx.saved_tensors
    dx, *gradients = frequency_layer_backward(x, weights, *ctx.options, dy)
    return dx, gradients, None, None


frequency_layer.register_autograd(_frequency_gradients, setup_context=_frequency_setup)


def _frequency_args(x, weights, heads, eps):  # type: ignore[no-untyped-def]
    x, weights = x.contiguous(), [t.contiguous() for t in weights]
    C = x.shape[2]
    shapes = [(C,), (3 * C, C), (3 * C,), (C, C), (C,)] if heads else [(C,), (C, 3 * C), (C,)]
    for name, tensor, shape in zip(("x", *_FREQUENCY_WEIGHTS), (x, *weights), (x.shape, *shapes), strict=False):
        expect(name, tensor, *shape)
    args = _FrequencyArgs(rows=x.shape[0], S=x.shape[1], C=C, heads=heads)
    args.x, args.threads, args.eps = address(x), torch.get_num_threads(), eps
    for name, tensor in zip(_FREQUENCY_WEIGHTS, weights, strict=False):
        setattr(args, name, address(tensor))
    return args, (x, weights)
