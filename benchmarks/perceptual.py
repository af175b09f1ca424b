"""How closely does the training term `semamba.perceptual` follow PESQ?

    python benchmarks/perceptual.py [--model NAME] [--pairs ../shared/data/valid/paired]

Each clean recording is compared with the noisy one, with what the models make of it, with mixtures of these and of the
clean one, and with an enhanced one whose spectrum was tilted or whose gain swings. Printed: the correlation of the
distance with the raw score of PESQ (before the map to MOS-LQO) over all and inside files (their means taken out),
and the error of 4.5 minus the distance as a guess of the raw score.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

import semamba
from semamba import perceptual
from semamba.errors import SemambaError
from semamba.metrics.intrusive import SAMPLE_RATE, pesq_wb

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("clean", "noisy")
Signal = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="name or folder; may be repeated [default: the shipped one]")
    parser.add_argument("--pairs", type=Path, default=ROOT.parent / "shared/data/valid/paired")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        compare([semamba.load(name, device="cpu") for name in options.model or [None]], options.pairs)
    except SemambaError as error:
        sys.exit(f"error: {error}")


def compare(models: list[semamba.Enhancer], pairs: Path) -> None:
    paths = sorted((pairs / "clean").glob("*.flac"))
    if not paths:
        sys.exit(f"error: {pairs / 'clean'}: no FLAC files")
    raw, guess = [], []
    for path in paths:
        clean, noisy = (soundfile.read(pairs / side / path.name, dtype="float32")[0] for side in SIDES)
        waves = list(versions(clean, noisy, models))
        raw.append([raw_score(pesq_wb(clean, wave)) for wave in waves])
        heard = torch.from_numpy(np.stack(waves))
        guess.append((4.5 - perceptual.distance(heard, torch.from_numpy(clean).expand_as(heard))).tolist())
    scores, guesses = np.array(raw), np.array(guess)
    within = [(values - values.mean(1, keepdims=True)).ravel() for values in (scores, guesses)]
    error = guesses - scores
    print("| signals | correlation | inside files | mean error | its spread |\n|---:|---:|---:|---:|---:|")
    overall, inside = np.corrcoef(scores.ravel(), guesses.ravel())[0, 1], np.corrcoef(*within)[0, 1]
    print(f"| {scores.size} | {overall:.3f} | {inside:.3f} | {error.mean():+.2f} | {error.std():.2f} |")


def versions(clean: Signal, noisy: Signal, models: list[semamba.Enhancer]) -> Iterator[Signal]:
    yield noisy
    yield (clean + noisy) / 2
    for model in models:
        enhanced = np.asarray(model(noisy, SAMPLE_RATE), dtype=np.float32)
        yield enhanced
        yield 0.7 * enhanced + 0.3 * noisy
        yield 0.7 * enhanced + 0.3 * clean
        yield enhanced - 0.5 * np.concatenate([enhanced[:1] * 0, enhanced[:-1]])  # brighter
        swing = 1 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(len(enhanced)) / SAMPLE_RATE)
        yield (enhanced * swing).astype(np.float32)


def raw_score(mos: float) -> float:
    """The map of P.862.2, inverted."""
    return float((3.8224 - np.log(4 / (mos - 0.999) - 1)) / 1.3669)


if __name__ == "__main__":
    main()
