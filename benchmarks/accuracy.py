"""Largest relative error of the kernels' elementary functions against float64, for every instruction set here.

    python benchmarks/accuracy.py

The functions are reached through the selective scan: one step from the state 1 without input gives exp(delta A), one
step from the state 0 gives softplus, and the gate gives silu. Torch's float32 functions stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.ops import cpu, selective_scan

POINTS = 240_000
Function = Callable[[Tensor], Tensor]

RANGES: dict[str, list[tuple[float, float]]] = {
    "exp": [(-1, 0), (-10, -1), (-87, -10)],
    "softplus": [(0, 100), (-10, 0), (-30, -10), (-87, -30)],
    "silu": [(0, 100), (-10, 0), (-30, -10), (-87, -30)],
}


def main() -> None:
    sets = [name for name in ("avx512", "avx2", "portable") if available(name)]
    print(f"{'':10}{'range':>12}" + "".join(f"{name:>12}" for name in [*sets, "torch"]))
    for name, ranges in RANGES.items():
        for low, high in ranges:
            x = torch.linspace(low, high, POINTS, dtype=torch.float32)
            errors = []
            for isa in sets:
                cpu.use(isa)
                errors.append(error(KERNELS[name](x), EXACT[name](x.double())))
            errors.append(error(EXACT[name](x), EXACT[name](x.double())))
            print(f"{name:10}{f'{low:g} to {high:g}':>12}" + "".join(f"{value:12.1e}" for value in errors))


def available(name: str) -> bool:
    try:
        cpu.use(name)
    except ValueError:
        return False
    return True


def error(actual: Tensor, exact: Tensor) -> float:
    counts = exact != 0
    return float(((actual.double() - exact)[counts] / exact[counts]).abs().max())


def step(u: float, delta: Tensor, rate: float, state: float, z: Tensor | None, softplus: bool) -> tuple[Tensor, Tensor]:
    """One step of a scan with one state for each point: y and the state after it."""
    count, one = delta.numel(), torch.ones(1, 1, 1)
    y, final = selective_scan(
        torch.full((1, 1, count), u),
        delta.view(1, 1, -1),
        torch.full((count, 1), rate),
        one,
        0 * one,
        torch.ones(count),
        z=None if z is None else z.view(1, 1, -1),
        delta_softplus=softplus,
        initial_state=torch.full((1, count, 1), state),
    )
    return y.flatten(), final.flatten()


KERNELS: dict[str, Function] = {
    "exp": lambda x: step(0.0, -x, -1.0, 1.0, None, False)[1],
    "softplus": lambda x: step(1.0, x, 0.0, 0.0, None, True)[1],
    "silu": lambda x: step(1.0, torch.zeros_like(x), 0.0, 0.0, x, False)[0],
}
EXACT: dict[str, Function] = {
    "exp": torch.exp,
    "softplus": lambda x: torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0),
    "silu": F.silu,
}


if __name__ == "__main__":
    main()
