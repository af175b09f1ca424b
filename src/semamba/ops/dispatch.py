"""Which kernel runs, decided in one place; the public signature of the selective scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from semamba.ops import cpu, gpu, graph, reference

Backend = Literal["reference", "cpu", "triton", "graph"]
_forced: Backend | None = None
# Above this many channels a fused row leaves the first-level cache and the BLAS library is faster.
FUSED_CHANNELS = 128


def backend_for(x: Tensor) -> Backend:
    """The kernel for a tensor: C++ on the CPU, Triton on a GPU; the reference for float64 and where nothing else is."""
    if _forced is not None:
        return _forced
    if x.device.type == "cpu" and x.dtype != torch.float64 and cpu.available():
        return "cpu"
    if x.device.type == "cuda" and x.dtype != torch.float64 and gpu.available():
        return "triton"
    return "reference"


def fused_backend(x: Tensor, weights: Iterable[Tensor]) -> Backend:
    """The kernel for a whole layer: the C++ ones read float32 tensors only, x and every weight."""
    if all(tensor.dtype == torch.float32 for tensor in (x, *weights)):
        return backend_for(x)
    return "reference"


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """Force one kernel inside a `with` block, for tests, benchmarks, and for exporters ("graph").

    "triton" takes CPU tensors when TRITON_INTERPRET=1 was set before its first use. Raises RuntimeError without triton.
    """
    global _forced
    if backend == "triton" and not gpu.available():
        raise RuntimeError(gpu.why_unavailable())
    before, _forced = _forced, backend
    try:
        yield
    finally:
        _forced = before


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
    """The selective scan of Mamba (Gu & Dao 2023, eq. 2-4), differentiable in every tensor.

        h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t = (C_t . h_t + D u_t) * silu(z_t)

    u, delta, z: (batch, L, D), any strides; A: (D, N), negative; B, C: (batch, L, N); D, delta_bias: (D,). `delta_bias`
    is added to delta and `delta_softplus` applied first. `initial_state` (batch, D, N) defaults to zero. `reverse`
    reads the sequence from its end. Returns y, shaped and typed like u, and the state after the last step read,
    float32. Raises ValueError for shapes that do not fit.
    """
    _check(u, delta, A, B, C, D, z, delta_bias, initial_state)
    backend = backend_for(u)
    if backend == "triton":
        return gpu.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse)
    if backend == "graph":
        return graph.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse)
    if backend == "reference":
        return reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse)
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    tensors = [t if t is None or t.dtype == torch.float32 else t.float() for t in inputs]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    y, final, _ = cpu.scan(*tensors[:8], delta_softplus, tensors[8], reverse, keep)
    return y.to(u.dtype), final


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> None:
    if u.dim() != 3 or A.dim() != 2:
        raise ValueError(f"u must be (batch, L, D) and A (D, N), got {tuple(u.shape)} and {tuple(A.shape)}")
    batch, length, inner = u.shape
    n = A.shape[1]
    expected = {
        "delta": (delta, (batch, length, inner)),
        "A": (A, (inner, n)),
        "B": (B, (batch, length, n)),
        "C": (C, (batch, length, n)),
        "D": (D, (inner,)),
        "z": (z, (batch, length, inner)),
        "delta_bias": (delta_bias, (inner,)),
        "initial_state": (initial_state, (batch, inner, n)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape} to go with u {tuple(u.shape)}, got {tuple(tensor.shape)}")
