"""Does a model fall short of what it was trained on, or only of what is new to it?

    python benchmarks/fit.py [--model NAME] [--manifest ../shared/data/manifest.csv] [--count 60]

Voices and recorded noises of the training split and of the validation split, in every combination: mixtures of five
seconds at 0 to 10 dB (active speech to active noise), nothing else done to them. The same speech meets both kinds of
noise and the same noise both kinds of speech. If rows differ no more than the noisy ones do, more data would not help.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import semamba
from semamba import checkpoint
from semamba.data.bank import SpeechBank
from semamba.data.dataset import Pair
from semamba.data.manifest import Manifest
from semamba.data.mixing import PROBABILITIES, MixConfig, Mixer, noise_gain
from semamba.errors import SemambaError
from semamba.spectrum import Spectrum
from semamba.train.scores import SCORES, score_all
from semamba.train.validate import validate

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "valid")
SNR_DB = (0.0, 10.0)
PLAIN = replace(MixConfig(crop_seconds=5.0, paired=0.0), **dict.fromkeys(PROBABILITIES, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="name or folder; may be repeated [default: the shipped one]")
    parser.add_argument("--manifest", type=Path, default=ROOT.parent / "shared/data/manifest.csv")
    parser.add_argument("--count", type=int, default=60, help="mixtures of each combination")
    options = parser.parse_args()
    names = options.model or [semamba.load(None, device="cpu").name]
    try:
        compare(names, Manifest.read(options.manifest), options.count)
    except SemambaError as error:
        sys.exit(f"error: {error}")


def compare(names: list[str], manifest: Manifest, count: int) -> None:
    """Print one line for each combination and system."""
    mixers = {split: Mixer(SpeechBank.load(manifest, split), PLAIN) for split in SPLITS}
    models = {name: checkpoint.load(name) for name in names}
    print("| voices | noises | system | PESQ-WB | STOI | SI-SDR [dB] |\n|---|---|---|---:|---:|---:|")
    for voices in SPLITS:
        for noises in SPLITS:
            pairs = list(mixtures(mixers[voices], mixers[noises], count))
            scores = {"noisy": score_all(((pair.clean, pair.noisy) for pair in pairs), 2)}
            for name, model in models.items():
                scores[name] = validate(model, Spectrum(model.stft), pairs, torch.device("cpu"), 2)
            for name, means in scores.items():
                cells = " | ".join(f"{means[key]:.3f}" for key in SCORES)
                print(f"| {voices} | {noises} | {name} | {cells} |", flush=True)


def mixtures(voices: Mixer, noises: Mixer, count: int) -> Iterator[Pair]:
    for index in range(count):
        clean = voices.sample(np.random.default_rng([index, 0]))[1]
        noise = np.subtract(*noises.sample(np.random.default_rng([index, 1])))
        snr = np.random.default_rng([index, 2]).uniform(*SNR_DB)
        yield Pair(str(index), clean + noise * noise_gain(clean, noise, snr, 16000), clean)


if __name__ == "__main__":
    main()
