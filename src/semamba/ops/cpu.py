"""The C++ kernels as PyTorch operators: `semamba::scan` and `semamba::mamba_block`, with their gradients.

The library is plain C functions in one shared object, built with the package and optional. The structures below mirror
csrc/kernels.h field by field.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = Path(__file__).with_name("_kernels.dll" if sys.platform == "win32" else "_kernels.so")

_Int, _Pointer = ctypes.c_int64, ctypes.c_void_p


def _fields(integers: str, pointers: str) -> list[tuple[str, type]]:
    return [(name, _Int) for name in integers.split()] + [(name, _Pointer) for name in pointers.split()]


class _ScanArgs(ctypes.Structure):
    _fields_ = _fields(
        "batch length D N reverse softplus threads "
        "u_batch u_step delta_batch delta_step B_batch B_step C_batch C_step z_batch z_step",
        "u delta A B C skip z delta_bias initial_state y final_state checkpoints "
        "dy dfinal_state du ddelta dA dB dC dskip dz ddelta_bias dinitial_state",
    )


class _BlockArgs(ctypes.Structure):
    _fields_ = [
        *_fields(
            "outer length inner d D N R taps reverse residual threads",
            "x norm in_proj conv_weight conv_bias x_proj dt_proj dt_bias A skip out_proj conv_state scan_state "
            "y final_conv final_scan checkpoints",
        ),
        ("eps", ctypes.c_double),
        *_fields(
            "",
            "dy dx dnorm din_proj dconv_weight dconv_bias dx_proj ddt_proj ddt_bias dA dskip dout_proj",
        ),
    ]


@cache
def _library() -> ctypes.CDLL | None:
    if not LIBRARY.exists():
        return None
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None
    library.semamba_kernel.restype = ctypes.c_char_p
    library.semamba_lanes.restype = library.semamba_chunk.restype = ctypes.c_int64
    return library


def available() -> bool:
    """Whether the compiled library is there and loads."""
    return _library() is not None


# What torch.compiler.assume_constant_result does, without its import of the whole compiler: a graph of torch.compile is
# made for the kernel there is, and the loading of a library is not traced.
available._dynamo_marked_constant = True  # type: ignore[attr-defined]


def why_unavailable() -> str:
    """One line for `semamba doctor`."""
    if not LIBRARY.exists():
        return "the C++ kernels were not built (no compiler when the package was installed)"
    try:
        ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return f"the C++ kernels do not load: {error}"
    return ""


def kernel_name() -> str:
    """Instruction set in use: avx512, avx2 or portable."""
    return _loaded().semamba_kernel().decode()


def use(name: str) -> None:
    """Run the named instruction set from now on. Raises ValueError when this processor or build lacks it."""
    if not _loaded().semamba_use(name.encode()):
        raise ValueError(f"instruction set '{name}' is not available on this machine")


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError(why_unavailable())
    return library


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _rows(tensor: Tensor) -> Tensor:
    """(B, L, n) with unit stride along the last axis; other strides are passed on as they are."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _checkpoint_shape(sequences: int, length: int, D: int, N: int) -> tuple[int, ...]:
    library = _library()
    lanes, chunk = (library.semamba_lanes(), library.semamba_chunk()) if library else (16, 32)
    return sequences, -(-length // chunk), N, -(-D // lanes) * lanes


# ------------------------------------------------------------------------------------------------------------- the scan


@torch.library.custom_op("semamba::scan", mutates_args=(), device_types="cpu")
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
    """float32 scan: y, final state, and with `keep` the states that the backward pass starts its chunks from."""
    y = torch.empty(u.shape, dtype=u.dtype)
    final = torch.empty(u.shape[0], *A.shape)
    checkpoints = torch.empty(_checkpoint_shape(*u.shape[:2], *A.shape) if keep else 0)
    args, held = _scan_args(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse)
    args.y, args.final_state = _at(y), _at(final)
    args.checkpoints = _at(checkpoints) if keep else None
    _loaded().semamba_scan_forward(ctypes.byref(args))
    del held
    return y, final, checkpoints


@scan.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse, keep):  # type: ignore[no-untyped-def]
    shape = _checkpoint_shape(*u.shape[:2], *A.shape) if keep else (0,)
    return u.new_empty(u.shape), u.new_empty(u.shape[0], *A.shape), u.new_empty(shape)


@torch.library.custom_op("semamba::scan_backward", mutates_args=(), device_types="cpu")
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
    args, held = _scan_args(u, delta, A, B, C, D, z, delta_bias, delta_softplus, None, reverse)
    dy, dfinal = dy.contiguous(), dfinal.contiguous()
    shapes = [u.shape, u.shape, A.shape, B.shape, C.shape]
    shapes += [torch.Size([0]) if t is None else t.shape for t in (D, z, delta_bias)]
    gradients = [torch.empty(shape) for shape in [*shapes, dfinal.shape]]
    names = ("du", "ddelta", "dA", "dB", "dC", "dskip", "dz", "ddelta_bias", "dinitial_state")
    for name, gradient in zip(names, gradients, strict=True):
        setattr(args, name, _at(gradient) if gradient.numel() else None)
    args.dy, args.dfinal_state, args.checkpoints = _at(dy), _at(dfinal), _at(checkpoints)
    if u.shape[1] == 0:  # no step: the state passes through
        return [*(g.zero_() for g in gradients[:-1]), dfinal.clone()]
    _loaded().semamba_scan_backward(ctypes.byref(args))
    del held
    return gradients


@scan_backward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, checkpoints, dy, dfinal):  # type: ignore[no-untyped-def]
    optional = [u.new_empty(0 if t is None else t.shape) for t in (D, z, delta_bias)]
    return [*(t.new_empty(t.shape) for t in (u, delta, A, B, C)), *optional, dfinal.new_empty(dfinal.shape)]


def _scan_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.softplus, initial, ctx.reverse, _ = inputs
    ctx.has_initial = initial is not None
    ctx.save_for_backward(*tensors, output[2])


def _scan_gradients(ctx, dy, dfinal, _):  # type: ignore[no-untyped-def]
    *tensors, checkpoints = ctx.saved_tensors
    out = scan_backward(*tensors, ctx.softplus, ctx.reverse, checkpoints, dy, dfinal)
    gradients = [g if t is not None else None for t, g in zip(tensors, out[:8], strict=True)]
    return *gradients, None, out[8] if ctx.has_initial else None, None, None


scan.register_autograd(_scan_gradients, setup_context=_scan_setup)


def _scan_args(u, delta, A, B, C, D, z, delta_bias, softplus, initial, reverse):  # type: ignore[no-untyped-def]
    """The structure, and the tensors it points into (to be kept alive until the call is over)."""
    u, delta, B, C = _rows(u), _rows(delta), _rows(B), _rows(C)
    z = None if z is None else _rows(z)
    A, D, delta_bias, initial = (None if t is None else t.contiguous() for t in (A, D, delta_bias, initial))
    args = _ScanArgs(batch=u.shape[0], length=u.shape[1], D=A.shape[0], N=A.shape[1])
    args.reverse, args.softplus = reverse, softplus
    args.threads = torch.get_num_threads()
    for name, tensor in (("u", u), ("delta", delta), ("B", B), ("C", C), ("z", z)):
        if tensor is not None:
            setattr(args, name, _at(tensor))
            setattr(args, f"{name}_batch", tensor.stride(0))
            setattr(args, f"{name}_step", tensor.stride(1))
    args.A, args.skip, args.delta_bias, args.initial_state = _at(A), _at(D), _at(delta_bias), _at(initial)
    return args, (u, delta, A, B, C, D, z, delta_bias, initial)


# ------------------------------------------------------------------------------------------------------ the fused block

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
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    conv = torch.empty(sequences, args.taps - 1, args.D)
    state = torch.empty(sequences, args.D, args.N)
    checkpoints = torch.empty(_checkpoint_shape(sequences, x.shape[1], args.D, args.N) if keep else 0)
    past = [None if t is None else t.contiguous() for t in (conv_state, scan_state)]
    args.conv_state, args.scan_state = _at(past[0]), _at(past[1])
    args.y, args.final_conv, args.final_scan = _at(y), _at(conv), _at(state)
    args.checkpoints = _at(checkpoints) if keep else None
    _loaded().semamba_block_forward(ctypes.byref(args))
    del held
    return y, conv, state, checkpoints


@mamba_block.register_fake
def _(x, weights, conv_state, scan_state, eps, normalise, residual, reverse, keep):  # type: ignore[no-untyped-def]
    sequences, (D, N), taps = x.shape[0] * x.shape[2], weights[7].shape, weights[2].shape[-1]
    shape = _checkpoint_shape(sequences, x.shape[1], D, N) if keep else (0,)
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
    gradients = [torch.empty(t.shape) for t in (x, *weights)]
    for name, gradient in zip(("x", *_WEIGHTS), gradients, strict=True):
        setattr(args, f"d{name}", _at(gradient))
    args.dy, args.checkpoints = _at(dy), _at(checkpoints)
    if not normalise:
        gradients[1].zero_()
    _loaded().semamba_block_backward(ctypes.byref(args))
    del held
    return gradients


@mamba_block_backward.register_fake
def _(x, weights, eps, normalise, residual, reverse, checkpoints, dy):  # type: ignore[no-untyped-def]
    return [t.new_empty(t.shape) for t in (x, *weights)]


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
    args = _BlockArgs(outer=outer, length=length, inner=inner, d=d, D=D, N=N, R=R, taps=taps)
    args.reverse, args.residual = reverse, residual
    args.threads, args.eps, args.x = torch.get_num_threads(), eps, _at(x)
    for name, tensor in zip(_WEIGHTS, weights, strict=True):
        setattr(args, name, _at(tensor))
    if not normalise:
        args.norm = None
    return args, (x, weights)


# ------------------------------------------------------------------------------------ residual layers along frequency


class _FrequencyArgs(ctypes.Structure):
    _fields_ = [
        *_fields("rows S C heads threads", "x norm weight bias out_weight out_bias y"),
        ("eps", ctypes.c_double),
        *_fields("", "dy dx dnorm dweight dbias dout_weight dout_bias"),
    ]


_FREQUENCY_WEIGHTS = ("norm", "weight", "bias", "out_weight", "out_bias")


@torch.library.custom_op("semamba::frequency_layer", mutates_args=(), device_types="cpu")
def frequency_layer(x: Tensor, weights: list[Tensor], heads: int, eps: float) -> Tensor:
    """x (rows, S, C) -> the same: attention with five weights and `heads`, convolution with three and heads 0."""
    args, held = _frequency_args(x, weights, heads, eps)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    args.y = _at(y)
    library = _loaded()
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
    gradients = [torch.empty(t.shape) for t in (x, *weights)]
    for name, gradient in zip(("x", *_FREQUENCY_WEIGHTS), gradients, strict=False):
        setattr(args, f"d{name}", _at(gradient))
    args.dy = _at(dy)
    library = _loaded()
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
    args = _FrequencyArgs(rows=x.shape[0], S=x.shape[1], C=x.shape[2], heads=heads)
    args.x, args.threads, args.eps = _at(x), torch.get_num_threads(), eps
    for name, tensor in zip(_FREQUENCY_WEIGHTS, weights, strict=False):
        setattr(args, name, _at(tensor))
    return args, (x, weights)
