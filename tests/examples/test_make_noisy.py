"""The synthesised example is what the script makes, and is speech in noise."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_noisy", EXAMPLES / "make_noisy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_file_is_what_the_script_makes(script: ModuleType) -> None:
    committed, rate = soundfile.read(EXAMPLES / "noisy.wav")
    _, noisy = script.make()
    assert rate == script.RATE
    np.testing.assert_allclose(committed, noisy, atol=2e-4)  # a few steps of 16 bits


@pytest.mark.parametrize("snr", [-5.0, 20.0])
def test_the_mixture_has_the_wanted_snr(script: ModuleType, snr: float) -> None:
    clean, noisy = script.make(snr)
    noise = noisy - clean
    assert 10 * np.log10((clean**2).mean() / (noise**2).mean()) == pytest.approx(snr, abs=1e-6)
    assert np.abs(noisy).max() == pytest.approx(0.9)


def test_a_resonator_rings_at_its_centre(script: ModuleType) -> None:
    impulse = np.zeros(4096)
    impulse[0] = 1.0
    response = np.abs(np.fft.rfft(script.resonate(impulse, np.full(4096, 1000.0), 80.0)))
    assert response.argmax() * script.RATE / 4096 == pytest.approx(1000, abs=10)
    assert response[0] == pytest.approx(1.0, rel=1e-3)  # gain 1 at zero frequency


def test_the_voice_follows_the_melody(script: ModuleType) -> None:
    flow = script.glottal_flow(np.full(16_000, 125.0), np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(flow * np.hanning(len(flow))))
    assert spectrum[20:200].argmax() + 20 == pytest.approx(125, abs=2)
