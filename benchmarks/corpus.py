"""Throughput of `semamba enhance` on a corpus of short files: 1 process, 2 processes, Ray. Prints one table.

    python benchmarks/corpus.py [--files 10000] [--seconds 0.5] [--engines "processes 1" "processes 2" "ray 2"]

The files are made first, in a temporary folder (10,000 of half a second take 160 MB, their results as much). Each
engine runs as a command of its own, so its time includes the start of Python, of the workers and of Ray. Every output
is counted and looked at for its length.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from semamba import audio

RATE = 16_000
FOLDER_SIZE = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each file")
    parser.add_argument("--engines", nargs="+", default=["processes 1", "processes 2", "ray 2"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="semamba-corpus-") as place:
        source = Path(place) / "in"
        make_files(source, options.files, options.seconds)
        load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
        what = f"{options.files} files of {options.seconds:g} s"
        print(f"{what}, {os.cpu_count()} processors, load before the start {load}\n")
        print("| engine | time | files a second | times real time | against the first |")
        print("|---|---:|---:|---:|---:|")
        first = None
        for engine in options.engines:
            took = run(engine, source, Path(place) / "out", options.files, options.seconds)
            first = first or took
            rates = f"{options.files / took:.0f} | {options.files * options.seconds / took:.0f}"
            print(f"| {engine} | {took:.1f} s | {rates} | {first / took:.2f} |", flush=True)


def make_files(folder: Path, count: int, seconds: float) -> None:
    """Noise with a tone, another in each file; in sub-folders of FOLDER_SIZE, as corpora have."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(round(seconds * RATE)) / RATE
    for index in range(count):
        path = folder / f"{index // FOLDER_SIZE:03d}" / f"{index:05d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * np.sin(2 * np.pi * (100 + index % 400) * time_axis) + 0.02 * rng.standard_normal(len(time_axis))
        audio.write(path, wave.astype(np.float32), RATE)


def run(engine: str, source: Path, target: Path, files: int, seconds: float) -> float:
    """Seconds of one run; stops the benchmark when an output is missing or cut."""
    name, jobs = engine.split()
    command = [sys.executable, "-m", "semamba", "enhance", str(source), "-r", "-o", str(target), "--engine", name]
    started = time.perf_counter()
    done = subprocess.run([*command, "-j", jobs, "--device", "cpu", "-q"], check=False)
    took = time.perf_counter() - started
    outputs = list(target.rglob("*.wav"))
    whole = sum(audio.probe(path).frames == round(seconds * RATE) for path in outputs)
    if done.returncode or whole != files:
        sys.exit(f"{engine}: exit code {done.returncode}, {whole} of {files} outputs complete")
    shutil.rmtree(target)
    return took


if __name__ == "__main__":
    main()
