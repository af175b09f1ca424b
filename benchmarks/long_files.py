"""Peak memory and speed of `semamba enhance` on long files, for any model, each in a process of its own.

    python benchmarks/long_files.py [--minutes 60] [--rate 16000] [--threads 2] [MODEL ...]

A model without weights in the package is run with random ones: memory and time do not depend on their values. The input
is a synthetic recording, written and read in blocks. Prints one Markdown row for each model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

COMMAND = "from semamba.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["causal-small"], metavar="MODEL")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=16_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print("| model | weights | minutes of audio | peak memory | seconds | times real time |")
    print("|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "long.flac")
        write_recording(source, options.minutes, options.rate)
        for name in options.models:
            print(measure(name, source, Path(folder), options.minutes, options.threads), flush=True)


def write_recording(path: Path, minutes: float, rate: int) -> None:
    """Modulated harmonics in noise, ten seconds at a time."""
    random = np.random.default_rng(0)
    time_axis = np.arange(10 * rate) / rate
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time_axis)
    voice = 0.1 * envelope * np.asarray([np.sin(2 * np.pi * 140 * k * time_axis) / k for k in range(1, 20)]).sum(0)
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for _ in range(round(minutes * 6)):
            file.write((voice + 0.03 * random.standard_normal(len(voice))).astype(np.float32))


def measure(name: str, source: Path, folder: Path, minutes: float, threads: int) -> str:
    weights, kind = weights_of(name, folder)
    target = folder / "better.flac"
    arguments = ["enhance", str(source), "-o", str(target), "--model", weights, "--overwrite", "--jobs", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], env=environment, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"semamba {' '.join(arguments)} failed")
    same = soundfile.info(target).frames == soundfile.info(source).frames
    if not same:
        raise SystemExit(f"{name}: the output has another length than the input")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20
    return f"| {name} | {kind} | {minutes:g} | {peak:.0f} MiB | {seconds:.0f} | {60 * minutes / seconds:.1f} |"


def weights_of(name: str, folder: Path) -> tuple[str, str]:
    """What to give to --model, and whether its weights are real."""
    from semamba import checkpoint, models

    if name in checkpoint.shipped() or Path(name).exists():
        return name, "trained"
    checkpoint.save(folder / name, models.build(models.preset(name)), {})
    return str(folder / name), "random"


if __name__ == "__main__":
    main()
