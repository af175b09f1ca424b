"""Layers of the convolutional codec as PyTorch operators: `semamba::instance_norm` and `semamba::dense_layer`.

The dense layer has no gradient: it is for passes that need none.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from semamba.ops.cpu import address, expect, fields, loaded
from semamba.ops.memory import empty, fresh

_BLOCK = 256  # positions whose statistics are taken at once: few enough for the second-level cache
MAX_GROUPS = 16


class _NormArgs(ctypes.Structure):
    _fields_ = [
        *fields("batch T F C block threads", "x weight bias slope y partial mean inverse"),
        ("eps", ctypes.c_double),
        *fields("", "dy dx dweight dbias dslope sums"),
    ]


class _DenseArgs(ctypes.Structure):
    _fields_ = [
        *fields("batch T F C O groups dilation threads", ""),
        ("x", ctypes.c_void_p * MAX_GROUPS),
        *fields("", "weight bias y packed partial"),
    ]


class _LineArgs(ctypes.Structure):
    _fields_ = fields("lines F G C O taps stride transposed threads", "x weight bias y partial")


# ---------------------------------------------------------------------------------------------- instance norm and PReLU


@torch.library.custom_op("semamba::instance_norm", mutates_args=(), device_types="cpu")
def instance_norm(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, P, C) float32 -> PReLU of the norm over P, and the mean and inverse deviation (B, C) of x."""
    x = x.contiguous()
    y = empty(*x.shape)
    args, mean, inverse, held = _norm_args(x, weight, bias, slope, eps)
    args.y = address(y)
    loaded().semamba_norm_forward(ctypes.byref(args))
    del held
    return y, mean, inverse


@instance_norm.register_fake
def _(x, weight, bias, slope, eps):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), *(x.new_empty(x.shape[0], x.shape[2]) for _ in range(2))


@torch.library.custom_op("semamba::instance_norm_", mutates_args=("x",), device_types="cpu")
def instance_norm_(x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None, eps: float) -> None:
    """The same in the memory of x, which must be contiguous; no gradient."""
    args, *held = _norm_args(x, weight, bias, slope, eps)
    args.y = address(x)
    loaded().semamba_norm_forward(ctypes.byref(args))
    del held


@torch.library.custom_op("semamba::instance_norm_backward", mutates_args=(), device_types="cpu")
def instance_norm_backward(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None, mean: Tensor, inverse: Tensor, dy: Tensor
) -> list[Tensor]:
    """Gradients of x, weight, bias and slope; the last one of size zero where there is no slope."""
    x, dy = x.contiguous(), dy.contiguous()
    args, *held = _norm_args(x, weight, bias, slope, 0.0)
    args.mean, args.inverse = address(mean), address(inverse)
    sums = fresh((2 * mean.numel(),))
    gradients = [fresh(t.shape if t is not None else (0,)) for t in (x, weight, bias, slope)]
    args.dx, args.dweight, args.dbias, args.dslope = (address(g) for g in gradients)
    args.dy, args.sums = address(dy), address(sums)
    loaded().semamba_norm_backward(ctypes.byref(args))
    del held
    return gradients


@instance_norm_backward.register_fake
def _(x, weight, bias, slope, mean, inverse, dy):  # type: ignore[no-untyped-def]
    return [x.new_empty(t.shape if t is not None else (0,)) for t in (x, weight, bias, slope)]


def _norm_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, _ = inputs
    ctx.save_for_backward(*tensors, output[1], output[2])


def _norm_gradients(ctx, dy, *_):  # type: ignore[no-untyped-def]
    tensors = ctx.saved_tensors
    dx, dweight, dbias, dslope = instance_norm_backward(*tensors, dy)
    return dx, dweight, dbias, dslope if tensors[3] is not None else None, None


instance_norm.register_autograd(_norm_gradients, setup_context=_norm_setup)


def _norm_args(x, weight, bias, slope, eps):  # type: ignore[no-untyped-def]
    """The structure, mean, inverse deviation, and what else it points into."""
    batch, positions, channels = x.shape
    weights = [None if t is None else t.contiguous() for t in (weight, bias, slope)]
    expect("x", x, *x.shape)
    for name, tensor in zip(("weight", "bias", "slope"), weights, strict=True):
        if tensor is not None:
            expect(name, tensor, channels)
    mean, inverse = fresh((batch, channels)), fresh((batch, channels))
    partial = fresh((batch * -(-positions // _BLOCK), 3, channels))
    args = _NormArgs(batch=batch, T=1, F=positions, C=channels, block=_BLOCK, threads=torch.get_num_threads(), eps=eps)
    args.x, (args.weight, args.bias, args.slope) = address(x), map(address, weights)
    args.partial, args.mean, args.inverse = address(partial), address(mean), address(inverse)
    return args, mean, inverse, (partial, weights)


# --------------------------------------------------------------------------------------------- a layer of a dense block


@torch.library.custom_op("semamba::dense_layer", mutates_args=(), device_types="cpu")
def dense_layer(
    groups: list[Tensor],
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    slope: Tensor,
    dilation: int,
    eps: float,
) -> Tensor:
    """Groups (B, T, F, C), float32; weight (O, groups C, 3, 3) -> convolution, norm and PReLU, (B, T, F, O)."""
    groups = [group.contiguous() for group in groups]
    tensors = [t.contiguous() for t in (weight, bias, norm_weight, norm_bias, slope)]
    batch, frames, bins, channels = groups[0].shape
    out, library, threads = weight.shape[0], loaded(), torch.get_num_threads()
    for group in groups:
        expect("every group", group, batch, frames, bins, channels)
    _expect_layer(tensors, out, (out, len(groups) * channels, 3, 3))
    args = _DenseArgs(batch=batch, T=frames, F=bins, C=channels, O=out, dilation=dilation, threads=threads)
    args.groups = len(groups)
    for i, group in enumerate(groups):
        args.x[i] = address(group)
    y, packed = empty(batch, frames, bins, out), fresh((library.semamba_dense_scratch(ctypes.byref(args)),))
    args.weight, args.bias, args.y, args.packed = (address(t) for t in (*tensors[:2], y, packed))
    norm, held = _norm_in_place(y, tensors[2:], library.semamba_dense_bins(), eps)
    args.partial = norm.partial
    library.semamba_dense_forward(ctypes.byref(args), ctypes.byref(norm))
    del held
    return y


@dense_layer.register_fake
def _(groups, weight, bias, norm_weight, norm_bias, slope, dilation, eps):  # type: ignore[no-untyped-def]
    return groups[0].new_empty(*groups[0].shape[:3], weight.shape[0])


def _expect_layer(tensors: list[Tensor], out: int, shape: tuple[int, ...]) -> None:
    """Sizes of a convolution's weight and of the vectors that go with its output channels."""
    expect("weight", tensors[0], *shape)
    for name, tensor in zip(("bias", "norm_weight", "norm_bias", "slope"), tensors[1:], strict=True):
        expect(name, tensor, out)


def _norm_in_place(y, weights, block, eps):  # type: ignore[no-untyped-def]
    """The structure for norm and PReLU behind a convolution that leaves statistics, and what it points into."""
    batch, frames, bins, channels = y.shape
    partial = fresh((batch * frames * -(-bins // block), 3, channels))
    mean, inverse = fresh((batch, channels)), fresh((batch, channels))
    args = _NormArgs(batch=batch, T=frames, F=bins, C=channels, block=block, threads=torch.get_num_threads(), eps=eps)
    args.x = args.y = address(y)
    args.weight, args.bias, args.slope = map(address, weights)
    args.partial, args.mean, args.inverse = address(partial), address(mean), address(inverse)
    return args, (partial, mean, inverse)


# ---------------------------------------------------------------------------------- convolutions along frequency alone


@torch.library.custom_op("semamba::line_layer", mutates_args=(), device_types="cpu")
def line_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    slope: Tensor,
    stride: int,
    transposed: bool,
    eps: float,
) -> Tensor:
    """x (B, T, F, C), weight (O, C, 1, taps) or transposed (C, O, 1, taps) -> convolution, norm, PReLU (B, T, G, O)."""
    x = x.contiguous()
    tensors = [t.contiguous() for t in (weight, bias, norm_weight, norm_bias, slope)]
    shape = _line_shape(x, weight, stride, transposed)
    batch, frames, bins, channels = x.shape
    expect("x", x, *x.shape)
    _expect_layer(
        tensors, shape[3], ((channels, shape[3]) if transposed else (shape[3], channels)) + (1, weight.shape[3])
    )
    if shape[2] < 1:
        raise ValueError(f"{bins} bins are fewer than the {weight.shape[3]} taps of the convolution")
    y = empty(*shape)
    args = _LineArgs(lines=batch * frames, F=bins, G=y.shape[2], C=channels, O=y.shape[3], taps=weight.shape[3])
    args.stride, args.transposed, args.threads = stride, transposed, torch.get_num_threads()
    args.x, args.weight, args.bias, args.y = (address(t) for t in (x, *tensors[:2], y))
    norm, held = _norm_in_place(y, tensors[2:], y.shape[2], eps)
    args.partial = norm.partial
    loaded().semamba_line_forward(ctypes.byref(args), ctypes.byref(norm))
    del held
    return y


@line_layer.register_fake
def _(x, weight, bias, norm_weight, norm_bias, slope, stride, transposed, eps):  # type: ignore[no-untyped-def]
    return x.new_empty(_line_shape(x, weight, stride, transposed))


def _line_shape(x: Tensor, weight: Tensor, stride: int, transposed: bool) -> tuple[int, int, int, int]:
    bins, taps = x.shape[2], weight.shape[3]
    out = (bins - 1) * stride + taps if transposed else (bins - taps) // stride + 1
    return x.shape[0], x.shape[1], out, weight.shape[1 if transposed else 0]
