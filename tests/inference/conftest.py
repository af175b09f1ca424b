"""Small models: two that change nothing (one causal, one not) and one of the causal family with random weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semamba.inference.enhance import Enhancer
from semamba.models.causal import CausalConfig, CausalModel
from semamba.spectrum import StftConfig


class Scale(nn.Module):
    """Multiplies the compressed spectrum, so that the waveform is multiplied by `gain`; counts the frames it sees."""

    def __init__(self, stft: StftConfig, causal: bool, gain: float = 1.0, normalise: str = "none") -> None:
        super().__init__()
        self.config, self.stft, self.causal, self.normalise = (
            SimpleNamespace(kind="scale", stft=stft),
            stft,
            causal,
            normalise,
        )
        self.factor = gain**stft.power
        self.frames: list[tuple[int, int]] = []

    def forward(self, spectrum: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        self.frames.append((spectrum.shape[0], spectrum.shape[1]))
        return spectrum * self.factor, state


CAUSAL = StftConfig(window="sqrt_hann", framing="causal")
CENTRED = StftConfig(n_fft=400, hop_length=100)


def make_scale(causal: bool, gain: float = 1.0, normalise: str = "none") -> Scale:
    return Scale(CAUSAL if causal else CENTRED, causal, gain, normalise)


@pytest.fixture(params=["causal", "chunks"])
def identity(request: pytest.FixtureRequest) -> Enhancer:
    causal = request.param == "causal"
    return Enhancer(make_scale(causal, normalise="none" if causal else "rms"), "cpu")


@pytest.fixture(scope="session")
def tiny() -> Enhancer:
    torch.manual_seed(0)
    config = CausalConfig(channels=8, sub_bands=6, d_model=8, blocks=1, layers=1, d_state=4, heads=2)
    return Enhancer(CausalModel(config), "cpu")
