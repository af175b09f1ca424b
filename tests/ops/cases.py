"""Random inputs for the kernels, and comparisons with the reference in float64.

Kernels get float32 leaves; the reference gets the same numbers as float64, so that only the kernels round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from semamba.ops import cpu

# Of the largest reference value. Sums over a few thousand float32 terms; single elements are good to about 4e-6.
FORWARD, GRADIENT = 1e-5, 3e-5
INSTRUCTION_SETS = ("avx512", "avx2", "portable")


@contextmanager
def instructions(name: str) -> Iterator[None]:
    """Run one instruction set inside a `with` block."""
    before = cpu.kernel_name()
    cpu.use(name)
    try:
        yield
    finally:
        cpu.use(before)


def available_instructions() -> list[str]:
    """Those this machine and this build have, best first."""
    names = []
    for name in INSTRUCTION_SETS:
        try:
            with instructions(name):
                names.append(name)
        except (ValueError, RuntimeError):
            continue
    return names


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def leaves(values: Mapping[str, Tensor | None], dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Fresh leaves of `dtype` with the same numbers."""
    return {k: None if v is None else v.detach().to(dtype, copy=True).requires_grad_() for k, v in values.items()}


def gradients(
    outputs: Sequence[Tensor], inputs: Mapping[str, Tensor | None], cotangents: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Gradient of sum(outputs * cotangents) for every input that is there."""
    present = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    pairs = [(y, g.to(y.dtype)) for y, g in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return {name: torch.zeros_like(tensor) for name, tensor in present.items()}
    found = torch.autograd.grad(
        [y for y, _ in pairs], list(present.values()), [g for _, g in pairs], allow_unused=True, materialize_grads=True
    )
    return dict(zip(present, found, strict=True))


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, name: str = "") -> None:
    """Largest difference at most `tolerance` of the largest expected magnitude."""
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)} != {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    scale = max(float(expected.detach().abs().max()), 1e-3)
    error = float((actual.detach().double() - expected.detach().double()).abs().max())
    assert error <= tolerance * scale, f"{name}: off by {error:.2e} at a scale of {scale:.2e}"


def assert_same_gradients(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = GRADIENT
) -> None:
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(actual[name], gradient, tolerance, f"gradient of {name}")


def same_nan(actual: Tensor, expected: Tensor) -> bool:
    return bool((actual.isnan() == expected.isnan()).all())


def captured_graphs(function: Callable[..., object], *args: object) -> list[list[str]]:
    """Operators in each graph that torch.compile(fullgraph=True) makes of a call, forward first, then backward."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    graphs: list[list[str]] = []

    def keep(module: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append([str(node.target) for node in module.graph.nodes if node.op == "call_function"])
        return make_boxed_func(module.forward)

    torch._dynamo.reset()
    result = torch.compile(function, fullgraph=True, backend=aot_autograd(fw_compiler=keep))(*args)
    result.sum().backward()  # type: ignore[attr-defined]
    torch._dynamo.reset()
    return graphs
