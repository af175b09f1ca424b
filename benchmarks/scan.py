"""Time the C++ selective scan against the reference loop, and the fused Mamba block against its composition.

    python benchmarks/scan.py [--threads 2] [--seconds 5]

Baseline and kernel are timed in turns, in one process; a row shows the medians over the turns, and the median of the
ratios of the two times of a turn, so that another program on the machine disturbs both alike. Ends within a minute.
The last rows look for denormal numbers: the same work on a signal and on the silence after it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from semamba.models.mamba import Mamba, MambaConfig, RMSNorm
from semamba.ops import block, cpu, mamba_block, reference, selective_scan, using
from semamba.train.allocator import prepare_cpu

SCAN = {"B": 100, "L": 161, "D": 256, "N": 16}
BLOCK = {"outer": 8, "L": 125, "inner": 24, "d": 48}  # causal-small along time, two seconds of eight files

Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row; three turns at least")
    options = parser.parse_args()
    prepare_cpu(options.threads)  # as training does; without it page faults of fresh buffers cost more than the scan
    torch.set_flush_denormal(False)  # the kernels must do that themselves
    torch.manual_seed(0)
    print(machine(options.threads))
    rows = [*scan_rows(), *block_rows()]
    print(f"\n{'':44}{'baseline':>12}{'kernel':>12}{'ratio':>8}{'turns':>7}")
    for name, baseline, kernel in rows:
        print(line(name, *turns(baseline, kernel, options.seconds)), flush=True)
    print(f"\n{'the same kernel on':44}{'silence':>12}{'noise':>12}{'ratio':>8}{'turns':>7}")
    for name, silent, loud in silence_rows():
        print(line(name, *turns(silent, loud, options.seconds / 5)), flush=True)


def machine(threads: int) -> str:
    """What the figures belong to."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")), model)
    load = f", load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} processors{load}; {threads} threads, {cpu.kernel_name()}, "
        f"torch {torch.__version__}, {platform.system()}"
    )


def turns(baseline: Run, kernel: Run, seconds: float) -> tuple[float, float, float, int]:
    """Median seconds of both, median ratio, and how often both ran; the first turn is not counted."""
    baseline(), kernel()
    first: list[float] = []
    second: list[float] = []
    end = time.perf_counter() + seconds
    while len(first) < 3 or (time.perf_counter() < end and len(first) < 200):
        first.append(elapsed(baseline))
        second.append(elapsed(kernel))
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    return statistics.median(first), statistics.median(second), ratio, len(first)


def elapsed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def line(name: str, baseline: float, kernel: float, ratio: float, count: int) -> str:
    return f"{name:44}{baseline * 1e3:9.2f} ms{kernel * 1e3:9.2f} ms{ratio:8.2f}{count:7}"


def scan_inputs() -> dict[str, Tensor]:
    """A scan as a Mamba layer calls it: S4D-real A, steps from 1 ms to 100 ms."""
    b, length, d, n = SCAN.values()
    return {
        "u": torch.randn(b, length, d),
        "delta": torch.randn(b, length, d),
        "A": -torch.arange(1.0, n + 1).repeat(d, 1),
        "B": torch.randn(b, length, n),
        "C": torch.randn(b, length, n),
        "D": torch.ones(d),
        "z": torch.randn(b, length, d),
        "delta_bias": torch.empty(d).uniform_(-6.9, -2.3),
    }


def scan_rows() -> list[tuple[str, Run, Run]]:
    inputs = scan_inputs()
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    size = " ".join(f"{letter} {count}" for letter, count in SCAN.items())

    def both_ways(scan: Callable[..., tuple[Tensor, Tensor]]) -> Run:
        def run() -> object:
            y, _ = scan(**leaves, delta_softplus=True)
            return torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

        return run

    return [
        (
            f"scan, {size}, forward",
            lambda: reference.selective_scan(**inputs, delta_softplus=True),
            lambda: selective_scan(**inputs, delta_softplus=True),
        ),
        ("scan, forward + backward", both_ways(reference.selective_scan), both_ways(selective_scan)),
    ]


def block_rows() -> list[tuple[str, Run, Run]]:
    """The baseline is PyTorch around the C++ scan, then PyTorch around the reference loop."""
    mamba, norm = Mamba(MambaConfig(BLOCK["d"])), RMSNorm(BLOCK["d"])
    weights = mamba._weights(norm.weight)
    x = torch.randn(*BLOCK.values(), requires_grad=True)
    leaves = [x, *(w for w in weights if w is not None)]
    size = " ".join(f"{letter} {count}" for letter, count in BLOCK.items())

    def fused() -> Tensor:
        return mamba_block(x, weights)[0]

    def composed() -> Tensor:
        return block._composed(x, weights, None, reverse=False, residual=True, eps=1e-5)[0]

    def plain() -> Tensor:
        with using("reference"):
            return composed()

    def forward(function: Callable[[], Tensor]) -> Run:
        return torch.no_grad()(function)

    def both_ways(function: Callable[[], Tensor]) -> Run:
        return lambda: torch.autograd.grad(function(), leaves, torch.ones_like(x))

    return [
        (f"block, {size}, forward", forward(composed), forward(fused)),
        ("block, forward + backward", both_ways(composed), both_ways(fused)),
        ("block against plain PyTorch, forward", forward(plain), forward(fused)),
        ("block against plain PyTorch, both", both_ways(plain), both_ways(fused)),
    ]


def silence_rows() -> list[tuple[str, Run, Run]]:
    """States and inputs in the range of denormal numbers, which processors handle a hundred times slower."""
    loud = scan_inputs()
    b, _, d, n = SCAN.values()
    quiet = {**loud, "u": torch.full_like(loud["u"], 1e-42), "B": torch.full_like(loud["B"], 1e-3)}
    fading = torch.full((b, d, n), 1e-37)
    mamba, norm = Mamba(MambaConfig(BLOCK["d"])), RMSNorm(BLOCK["d"])
    noise = torch.randn(*BLOCK.values())
    silence = torch.full_like(noise, 1e-42)

    def layer(x: Tensor) -> Run:
        return torch.no_grad()(lambda: mamba.residual(x, norm, 1))

    return [
        (
            "scan, forward",
            lambda: selective_scan(**quiet, delta_softplus=True, initial_state=fading),
            lambda: selective_scan(**loud, delta_softplus=True, initial_state=fading),
        ),
        ("block, forward", layer(silence), layer(noise)),
    ]


if __name__ == "__main__":
    main()
