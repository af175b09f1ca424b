"""Small sets of pairs, and a model that costs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semamba import audio

RATE = 16000


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """(n,) float32: a buzz with pauses, in which PESQ finds utterances."""
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 120 + 20 * seed
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20))
    return (0.1 * buzz * np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None)).astype(np.float32)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clean/ and noisy/ with three pairs and a clean file that has no partner; beside them speech/ and noise/."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for folder in ("clean", "noisy", "speech", "noise"):
        (root / folder).mkdir()
    for index in range(3):
        clean = voice(1.2, index) + 1e-4 * rng.standard_normal(int(1.2 * RATE)).astype(np.float32)
        audio.write(root / f"clean/u{index}.wav", clean[None], RATE)
        audio.write(root / f"speech/u{index}.wav", clean[None], RATE)
        noisy = clean + 0.02 * rng.standard_normal(clean.size, np.float32)
        audio.write(root / f"noisy/u{index}.wav", noisy[None], RATE)
    audio.write(root / "clean/alone.wav", voice(1.0)[None], RATE)
    for name in ("rain_0", "rain_1", "wind"):
        audio.write(root / f"noise/{name}.wav", 0.1 * rng.standard_normal((1, RATE), np.float32), RATE)
    return root
