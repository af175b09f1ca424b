"""Time the training step of causal-small: fused kernels against the same step composed in PyTorch, in one run.

    python benchmarks/training_step.py [--threads 2] [--seconds 10] [--recipe recipes/causal-small.yaml]

Three ways through the same step with the same weights, batch and loss: the fused kernels; PyTorch around the C++ scan
("composed"); and PyTorch alone, the scan a loop ("plain"). Each pair takes turns, so that another program on the
machine disturbs both alike; a row shows medians and the median of the ratios of a turn. The batch is noise, made once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from scan import machine, turns  # beside this file

from semamba.ops import block, frequency, using
from semamba.train.allocator import prepare_cpu
from semamba.train.recipe import load_recipe
from semamba.train.step import Training, start, train_step

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="processor cores in all")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row; three turns at least")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "causal-small.yaml")
    options = parser.parse_args()
    parallel = options.threads
    recipe = load_recipe(options.recipe, [f"train.parallel={parallel}", "train.compile=false", "train.device=cpu"])
    torch.set_num_threads(options.threads)
    prepare_cpu(0, parallel)
    print(machine(options.threads))
    train = recipe.train
    crop = round(recipe.mix.crop_seconds * SAMPLE_RATE)
    audio = train.batch_size * recipe.mix.crop_seconds
    print(
        f"{recipe.name}: {train.batch_size} crops of {recipe.mix.crop_seconds:g} s "
        f"in {train.accumulate} micro-batches, {parallel} at a time\n"
    )
    training = start(recipe, torch.device("cpu"))
    clean, noise = 0.1 * torch.randn(2, train.batch_size, crop)
    fused = step(training, clean + noise, clean)
    print(f"{'baseline':12}{'audio s/s':>12}{'fused s/s':>12}{'ratio':>8}{'turns':>7}")
    for name, baseline in (("composed", unfused(fused)), ("plain", plain(fused))):
        slow, fast, ratio, count = turns(baseline, fused, options.seconds)
        print(f"{name:12}{audio / slow:12.1f}{audio / fast:12.1f}{ratio:8.2f}{count:7}", flush=True)


def step(training: Training, noisy: torch.Tensor, clean: torch.Tensor) -> Callable[[], object]:
    return lambda: train_step(training, noisy, clean, 0.5)


def unfused(run: Callable[[], object]) -> Callable[[], object]:
    def composed() -> object:
        with no_fused_layers():
            return run()

    return composed


def plain(run: Callable[[], object]) -> Callable[[], object]:
    def reference() -> object:
        with using("reference"):
            return run()

    return reference


@contextmanager
def no_fused_layers() -> Iterator[None]:
    """Every layer is too wide for its fused kernel; the scan stays in C++."""
    widths = [(module, module.FUSED_CHANNELS) for module in (block, frequency)]
    for module, _ in widths:
        module.FUSED_CHANNELS = 0
    try:
        yield
    finally:
        for module, width in widths:
            module.FUSED_CHANNELS = width


if __name__ == "__main__":
    main()
