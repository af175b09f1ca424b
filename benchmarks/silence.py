"""Time `semamba enhance` on silent files against a noisy one: denormal numbers must not slow it down.

    python benchmarks/silence.py [--seconds 20] [--turns 5] [--threads 2] [MODEL ...]

Files of 32-bit floats: noise; digital zeros; a constant of 1e-40, itself a denormal number; and noise that fades by
2000 dB, through all denormal numbers. Each is read, enhanced and written by the command, in turns; a row shows
medians, and the median of the ratios to the noisy file of the same turn. A model without weights gets random ones.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from long_files import weights_of  # beside this file
from scan import machine

from semamba.cli import app

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["causal-small", "advanced-mamba"], metavar="MODEL")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each file")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine(options.threads))
    print(f"\n{'model':20}{'file':12}{'time':>11}{'of noise':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = write_files(folder, round(options.seconds * RATE))
        for model in options.models:
            weights, _ = weights_of(model, folder)
            enhance(sources["noise"], weights)  # loads libraries
            times: dict[str, list[float]] = {kind: [] for kind in sources}
            for _ in range(options.turns):
                for kind, source in sources.items():
                    times[kind].append(enhance(source, weights))
            for kind, seconds in times.items():
                ratio = statistics.median(a / b for a, b in zip(seconds, times["noise"], strict=True))
                print(f"{model:20}{kind:12}{statistics.median(seconds) * 1e3:8.0f} ms{ratio:10.2f}", flush=True)


def write_files(folder: Path, length: int) -> dict[str, Path]:
    noise = 0.1 * np.random.default_rng(0).standard_normal(length).astype(np.float32)
    fade = np.power(10.0, np.linspace(0, -100, length))  # in float64; float32 runs into denormal numbers below 1e-38
    signals = {
        "noise": noise,
        "zeros": np.zeros(length, np.float32),
        "denormal": np.full(length, 1e-40, np.float32),
        "fade": (noise * fade).astype(np.float32),
    }
    paths = {}
    for kind, signal in signals.items():
        paths[kind] = folder / f"{kind}.wav"
        soundfile.write(paths[kind], signal, RATE, subtype="FLOAT")
    return paths


def enhance(source: Path, weights: str) -> float:
    target = source.with_suffix(".enhanced.wav")
    arguments = ["enhance", str(source), "-o", str(target), "--model", weights, "--overwrite", "--jobs", "1"]
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        app(arguments, prog_name="semamba", standalone_mode=False)
    seconds = time.perf_counter() - start
    if soundfile.info(target).frames != soundfile.info(source).frames:
        raise SystemExit(f"{source.name}: the output has another length than the input")
    return seconds


if __name__ == "__main__":
    main()
