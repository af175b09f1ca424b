"""The latency that `Streamer` states against the one measured, and the time of a block: tables for docs/streaming.md.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py [--model causal-small] [--seconds 20]

Latency: an impulse goes through the whole way of a stream in blocks of random size, around a model that changes
nothing; how many samples later it comes out is counted. Time: blocks of 16 ms of noise through the model, one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import semamba
from semamba.models.causal import CausalConfig

RATES = (8000, 16_000, 22_050, 44_100, 48_000)


class Unchanged(nn.Module):
    """A causal model whose result is its input, with the spectrum of the causal family."""

    causal, normalise = True, "none"

    def __init__(self) -> None:
        super().__init__()
        self.stft = CausalConfig().stft
        self.config = SimpleNamespace(kind="unchanged")

    def forward(self, spectrum: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return spectrum, state


def measured_latency(rate: int, bandwidth: str, block: int) -> tuple[int, int]:
    """Samples, stated and measured."""
    rng = np.random.default_rng(rate + block)
    streamer = semamba.Streamer(Unchanged(), rate, mode="fixed", bandwidth=bandwidth, block=block)  # type: ignore[arg-type]
    at, wave, out = rate // 3, np.zeros(rate // block * block, np.float32), []
    wave[at] = 0.5
    start = 0
    while start < wave.size:
        size = block * int(rng.integers(1, max(2, 700 // block)))
        out.append(streamer.feed(wave[start : start + size]))
        start += size
    return streamer.latency_samples, int(np.abs(np.concatenate(out)).argmax()) - at


def latencies() -> None:
    print("| rate | bandwidth | blocks | stated | measured | |\n|---:|---|---|---:|---:|---:|")
    for rate in RATES:
        for bandwidth in ("model", "full") if rate > 16_000 else ("full",):
            for block, name in ((1, "any"), (rate // 125, "of 8 ms")):
                if block > 1 and bandwidth == "full" and rate > 16_000:
                    continue
                stated, measured = measured_latency(rate, bandwidth, block)
                milliseconds = f"{1000 * measured / rate:.1f} ms"
                print(f"| {rate} | {bandwidth} | {name} | {stated} | {measured} | {milliseconds} |")


def times(model: str, seconds: float) -> None:
    print(f"\n| {model}, blocks of 16 ms | mode | p50 | p99 | p50 of the processor's time |\n|---|---|---:|---:|---:|")
    enhancer = semamba.load(model, device="cpu")
    for rate in (16_000, 44_100, 48_000):
        for mode in ("exact", "fixed"):
            streamer = semamba.Streamer(enhancer, rate, mode=mode)  # type: ignore[arg-type]
            size = rate * 16 // 1000
            wave = 0.1 * np.random.default_rng(0).standard_normal(size * 50).astype(np.float32)
            wall, work = [], []
            for index in range(round(seconds / 0.016) + 20):
                block = wave[index % 50 * size : (index % 50 + 1) * size]
                began, busy = time.perf_counter(), time.thread_time()
                streamer.feed(block)
                wall.append(1000 * (time.perf_counter() - began))
                work.append(1000 * (time.thread_time() - busy))
            wall, work = wall[20:], work[20:]
            p99 = statistics.quantiles(wall, n=100)[-1]
            row = (statistics.median(wall), p99, statistics.median(work))
            print(f"| {rate} | {mode} | " + " | ".join(f"{value:.2f} ms" for value in row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="causal-small")
    parser.add_argument("--seconds", type=float, default=20.0, help="of sound for each row of the second table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    latencies()
    times(options.model, options.seconds)


if __name__ == "__main__":
    main()
