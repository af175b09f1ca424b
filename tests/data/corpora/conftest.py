"""Small trees in the layouts of the public archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

Write = Callable[..., Path]


def voice(seed: int, seconds: float = 0.6, rate: int = 16000) -> np.ndarray:
    """Noise bursts (n,): broad in frequency, so that a lag is sharp."""
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(round(seconds * rate))
    return 0.1 * wave * (np.sin(np.arange(len(wave)) * 20 / rate) > -0.2)


def noisy(clean: np.ndarray, seed: int = 99, level: float = 0.05) -> np.ndarray:
    return clean + level * np.random.default_rng(seed).standard_normal(len(clean))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(name, samples, rate=16000): a file below tmp_path/source."""

    def one(name: str, samples: np.ndarray, rate: int = 16000) -> Path:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype="PCM_16")
        return path

    return one


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir(exist_ok=True)
    return folder
