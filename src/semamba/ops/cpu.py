"""The library of C++ kernels, and the selective scan in it as the PyTorch operator `semamba::scan` with its gradient.

The library is plain C functions in one shared object, built with the package and optional. The structures here and in
`cpu_layers` mirror csrc/kernels.h field by field.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from semamba.ops.layout import rows
from semamba.ops.memory import fresh

LIBRARY = Path(__file__).with_name("_kernels.dll" if sys.platform == "win32" else "_kernels.so")

ISA_VARIABLE = "SEMAMBA_ISA"  # environment: avx512, avx2 or portable instead of the best that there is

_COUNTS = ("semamba_lanes", "semamba_chunk", "semamba_dense_bins", "semamba_dense_scratch")
_VERSION = 2  # of csrc/kernels.h, which says when it grows
_Int, _Pointer = ctypes.c_int64, ctypes.c_void_p


def fields(integers: str, pointers: str) -> list[tuple[str, type]]:
    return [(name, _Int) for name in integers.split()] + [(name, _Pointer) for name in pointers.split()]


class _ScanArgs(ctypes.Structure):
    _fields_ = fields(
        "batch length D N reverse softplus threads "
        "u_batch u_step delta_batch delta_step B_batch B_step C_batch C_step z_batch z_step",
        "u delta A B C skip z delta_bias initial_state y final_state checkpoints "
        "dy dfinal_state du ddelta dA dB dC dskip dz ddelta_bias dinitial_state",
    )


@cache
def _library() -> ctypes.CDLL | None:
    if not LIBRARY.exists() or _why_it_does_not_load():
        return None
    library = ctypes.CDLL(str(LIBRARY))
    library.semamba_kernel.restype = ctypes.c_char_p
    for name in _COUNTS:
        getattr(library, name).restype = ctypes.c_int64
    wanted = os.environ.get(ISA_VARIABLE)
    if wanted and not library.semamba_use(wanted.encode()):
        raise ValueError(f"{ISA_VARIABLE}={wanted}: this machine or build has no such kernels; try avx2 or portable")
    return library


def _why_it_does_not_load() -> str:
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return str(error)
    version = library.semamba_version() if hasattr(library, "semamba_version") else 0
    return "" if version == _VERSION else "it was built from other sources; install the package anew"


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
    reason = _why_it_does_not_load()
    return f"the C++ kernels do not load: {reason}" if reason else ""


def kernel_name() -> str:
    """Instruction set in use: avx512, avx2 or portable."""
    return loaded().semamba_kernel().decode()


def lanes() -> int:
    """Floats in a vector of the instruction set in use."""
    return int(loaded().semamba_lanes())


def use(name: str) -> None:
    """Run the named instruction set from now on. Raises ValueError when this processor or build lacks it."""
    if not loaded().semamba_use(name.encode()):
        raise ValueError(f"instruction set '{name}' is not available on this machine")


def loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError(why_unavailable())
    return library


def expect(what: str, tensor: Tensor, *shape: int) -> None:
    """The kernels read memory by sizes. Raises ValueError for a tensor that has others, or is not float32."""
    if tensor.shape != shape or tensor.dtype != torch.float32:
        raise ValueError(f"{what} must be float32 {shape}, got {tensor.dtype} {tuple(tensor.shape)}")


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def checkpoint_shape(sequences: int, length: int, D: int, N: int) -> tuple[int, ...]:
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
    y = fresh(u.shape)
    final = fresh((u.shape[0], *A.shape))
    checkpoints = fresh(checkpoint_shape(*u.shape[:2], *A.shape) if keep else (0,))
    args, held = _scan_args(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse)
    args.y, args.final_state = address(y), address(final)
    args.checkpoints = address(checkpoints) if keep else None
    loaded().semamba_scan_forward(ctypes.byref(args))
    del held
    return y, final, checkpoints


@scan.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse, keep):  # type: ignore[no-untyped-def]
    shape = checkpoint_shape(*u.shape[:2], *A.shape) if keep else (0,)
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
    gradients = [fresh(shape) for shape in [*shapes, dfinal.shape]]
    names = ("du", "ddelta", "dA", "dB", "dC", "dskip", "dz", "ddelta_bias", "dinitial_state")
    for name, gradient in zip(names, gradients, strict=True):
        setattr(args, name, address(gradient) if gradient.numel() else None)
    args.dy, args.dfinal_state, args.checkpoints = address(dy), address(dfinal), address(checkpoints)
    if u.shape[1] == 0:  # no step: the state passes through
        return [*(g.zero_() for g in gradients[:-1]), dfinal.clone()]
    loaded().semamba_scan_backward(ctypes.byref(args))
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
    u, delta, B, C = rows(u), rows(delta), rows(B), rows(C)
    z = None if z is None else rows(z)
    A, D, delta_bias, initial = (None if t is None else t.contiguous() for t in (A, D, delta_bias, initial))
    args = _ScanArgs(batch=u.shape[0], length=u.shape[1], D=A.shape[0], N=A.shape[1])
    args.reverse, args.softplus = reverse, softplus
    args.threads = torch.get_num_threads()
    for name, tensor in (("u", u), ("delta", delta), ("B", B), ("C", C), ("z", z)):
        if tensor is not None:
            setattr(args, name, address(tensor))
            setattr(args, f"{name}_batch", tensor.stride(0))
            setattr(args, f"{name}_step", tensor.stride(1))
    args.A, args.skip = address(A), address(D)
    args.delta_bias, args.initial_state = address(delta_bias), address(initial)
    return args, (u, delta, A, B, C, D, z, delta_bias, initial)
