"""How closely does the training term `semamba.perceptual` follow PESQ, and how far do models bend the spectrum?

    python benchmarks/perceptual.py [--model NAME] [--pairs ../shared/data/valid/paired]

Each clean recording is compared with the noisy one, with what the models make of it, with mixtures of these and of the
clean one, and with an enhanced one whose spectrum was tilted or whose gain swings. Printed: the correlation of the
distance with the raw score of PESQ (before the map to MOS-LQO) over all and inside files (their means taken out),
and the error of 4.5 minus the distance as a guess of the raw score. A second table has the power of each model's output
against the clean recording, band by band, in the frames within 10 dB of the mean power; means over files in dB.
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
from semamba.metrics.intrusive import SAMPLE_RATE, pesq_wb, raw_pesq

ROOT = Path(__file__).resolve().parents[1]
N_FFT = 512
BANDS = {"below 200 Hz": (0, 200), "200-400": (200, 400), "400-800": (400, 800), "0.8-1.6 kHz": (800, 1600),
         "1.6-3": (1600, 3000), "3-5": (3000, 5000), "5-8": (5000, 8001)}  # fmt: skip
Signal = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="name or folder; may be repeated [default: the shipped one]")
    parser.add_argument("--pairs", type=Path, default=ROOT.parent / "shared/data/valid/paired")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.model or [None]
    try:
        models = [semamba.load(name, device="cpu") for name in names]
        compare(models, options.pairs)
        print("\n| power [dB] | " + " | ".join(BANDS) + " |\n|---|" + "---:|" * len(BANDS))
        for name, model in zip(names, models, strict=True):
            cells = " | ".join(f"{value:+.1f}" for value in bend(model, options.pairs))
            print(f"| {name or 'the shipped one'} | {cells} |")
    except SemambaError as error:
        sys.exit(f"error: {error}")


def bend(model: semamba.Enhancer, pairs: Path) -> NDArray[np.float64]:
    """dB of each of BANDS, enhanced against clean."""
    frequency = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    changes = []
    for clean, noisy in recordings(pairs):
        heard, wanted = (power(wave) for wave in (np.asarray(model(noisy, SAMPLE_RATE)), clean))
        spoken = wanted.sum(1) > 0.1 * wanted.sum(1).mean()
        inside = [(frequency >= low) & (frequency < high) for low, high in BANDS.values()]
        changes.append([10 * np.log10(heard[spoken][:, i].sum() / wanted[spoken][:, i].sum()) for i in inside])
    return np.mean(changes, axis=0)


def power(wave: Signal) -> NDArray[np.float64]:
    """(n,) -> (frames, bins)."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, N_FFT)[:: N_FFT // 2]
    return np.abs(np.fft.rfft(frames * np.hanning(N_FFT))) ** 2


def recordings(pairs: Path) -> Iterator[tuple[Signal, Signal]]:
    """(clean, noisy) of each pair."""
    paths = sorted((pairs / "clean").glob("*.flac"))
    if not paths:
        sys.exit(f"error: {pairs / 'clean'}: no FLAC files")
    for path in paths:
        clean, noisy = (soundfile.read(pairs / side / path.name, dtype="float32")[0] for side in ("clean", "noisy"))
        yield clean, noisy


def compare(models: list[semamba.Enhancer], pairs: Path) -> None:
    raw, guess = [], []
    for clean, noisy in recordings(pairs):
        waves = list(versions(clean, noisy, models))
        raw.append([raw_pesq(pesq_wb(clean, wave)) for wave in waves])
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


if __name__ == "__main__":
    main()
