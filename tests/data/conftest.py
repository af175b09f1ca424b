"""A small corpus of made-up audio, written once."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba.data.bank import SpeechBank
from semamba.data.manifest import Manifest

RATE = 16000


def speech_like(seed: int, seconds: float) -> np.ndarray:
    """Syllables: a harmonic tone switched on and off four times a second, over a faint floor."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * k * (110 + 20 * seed) * time) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 2 * time + seed) * 3 + 0.5, 0, 1)
    return (0.1 * tone * syllables + 1e-4 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest.csv with speech of three voices, noises, a room and pairs, in train and valid."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, str, str]] = []

    def add(name: str, split: str, kind: str, speaker: str, samples: np.ndarray) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        rows.append((name, split, kind, speaker))

    for number in range(6):
        name = f"train/speech/v{number % 3}/{number}.flac"
        add(name, "train", "speech", f"v{number % 3}", speech_like(number % 3, 3.0))
    for number, seconds in enumerate((4.0, 4.0, 0.3)):
        noise = 0.1 * rng.standard_normal(round(seconds * RATE))
        add(f"train/noise/{number}.flac", "train", "noise", "", noise)
    response = 0.5 * rng.standard_normal(RATE // 2) * np.exp(-np.arange(RATE // 2) / 1500)
    response[:40], response[40] = 0, 0.9
    add("train/rir/0.flac", "train", "rir", "", np.clip(response, -1, 1))
    for number in range(3):
        add(f"valid/speech/w/{number}.flac", "valid", "speech", "w", speech_like(5, 2.0))
        clean = speech_like(7, 1.5)
        add(f"valid/paired/clean/p{number}.flac", "valid", "paired_clean", "", clean)
        noisy = clean + 0.02 * rng.standard_normal(len(clean))
        add(f"valid/paired/noisy/p{number}.flac", "valid", "paired_noisy", "", noisy)
    add("valid/noise/0.flac", "valid", "noise", "", 0.1 * rng.standard_normal(RATE))
    write_manifest(root / "manifest.csv", rows)
    return root / "manifest.csv"


def write_manifest(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "split", "kind", "speaker"), *rows])


@pytest.fixture(scope="session")
def bank(corpus: Path) -> SpeechBank:
    return SpeechBank.load(Manifest.read(corpus))


@pytest.fixture
def manifest_of(tmp_path: Path) -> Callable[[str], Path]:
    """Write the text as a manifest and give its path."""

    def write(text: str) -> Path:
        path = tmp_path / "manifest.csv"
        path.write_text(text)
        return path

    return write
