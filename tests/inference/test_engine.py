"""Any rate, the band above 8 kHz, mixing, stretching, memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from semamba import pcs
from semamba.errors import SemambaError
from semamba.inference.engine import Engine, Options
from semamba.inference.enhance import Enhancer
from semamba.inference.stretch import LevelledStretcher

from .conftest import make_scale


def noise(channels: int, frames: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, frames)) * 0.1).astype(np.float32)


def engine(model: torch.nn.Module, channels: int, sample_rate: int, options: Options) -> Engine:
    return Enhancer(model, "cpu").engine(channels, sample_rate, options)


def run(engine: Engine, wave: np.ndarray, step: int = 20_000) -> np.ndarray:
    pieces = [engine.push(wave[:, start : start + step]) for start in range(0, wave.shape[1], step)]
    return np.concatenate([*pieces, engine.finish()], axis=1)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("frames", [1, 1000, 60_007])
def test_identity_gives_the_whole_band_back(identity: Enhancer, rate: int, frames: int) -> None:
    wave = noise(2, frames)
    made = run(identity.engine(2, rate), wave)
    assert made.shape == wave.shape and made.dtype == np.float32
    assert np.allclose(made, wave, atol=2e-4)


@pytest.mark.parametrize("rate", [8000, 11_025])
def test_low_rates_keep_their_length_and_band(identity: Enhancer, rate: int) -> None:
    time = np.arange(2 * rate + 1) / rate
    wave = np.sin(2 * np.pi * 700 * time)[None].astype(np.float32)
    made = run(identity.engine(1, rate), wave)
    assert made.shape == wave.shape
    assert np.abs(made - wave)[:, 500:-500].max() < 2e-3


def band(wave: np.ndarray, rate: int, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(wave)) ** 2
    frequency = np.fft.rfftfreq(wave.shape[-1], 1 / rate)
    return float(spectrum[..., (frequency >= low) & (frequency < high)].sum())


@pytest.mark.parametrize("causal", [True, False])
def test_treble_follows_the_gain_of_the_model(causal: bool) -> None:
    wave = noise(1, 96_000)
    made = run(engine(make_scale(causal, gain=0.1), 1, 48_000, Options()), wave)
    for low, high in ((200, 7000), (9000, 15_000), (15_000, 23_000)):
        assert np.sqrt(band(made, 48_000, low, high) / band(wave, 48_000, low, high)) == pytest.approx(0.1, rel=0.05)


def test_treble_is_never_amplified() -> None:
    wave = noise(1, 48_000)
    made = run(engine(make_scale(True, gain=3.0), 1, 48_000, Options()), wave)
    assert band(made, 48_000, 9000, 23_000) == pytest.approx(band(wave, 48_000, 9000, 23_000), rel=0.01)


def test_bandwidth_of_the_model_drops_the_treble() -> None:
    wave = noise(1, 48_000)
    for mix in (1.0, 0.3):
        made = run(engine(make_scale(True), 1, 48_000, Options(bandwidth="model", mix=mix)), wave)
        assert band(made, 48_000, 9000, 23_000) < 1e-3 * band(wave, 48_000, 9000, 23_000)
        assert band(made, 48_000, 200, 7000) == pytest.approx(band(wave, 48_000, 200, 7000), rel=0.02)


def test_mix_and_limit() -> None:
    wave = noise(1, 20_000)
    silent = make_scale(True, gain=0.0)
    assert np.array_equal(run(engine(silent, 1, 16_000, Options(mix=0)), wave), wave)
    assert np.allclose(run(engine(silent, 1, 16_000, Options(attenuation_limit=20)), wave), wave * 0.1, atol=1e-5)
    assert np.allclose(run(engine(silent, 1, 48_000, Options(attenuation_limit=20)), wave), wave * 0.1, atol=1e-3)
    assert np.allclose(run(engine(silent, 1, 16_000, Options(mix=0.75)), wave), wave * 0.25, atol=1e-5)
    both = run(engine(silent, 1, 16_000, Options(mix=0.5, attenuation_limit=20)), wave)
    assert np.allclose(both, wave * 0.55, atol=1e-5)
    assert not run(engine(silent, 1, 16_000, Options()), wave).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": 1.5}, "mix"),
        ({"mix": float("nan")}, "mix"),
        ({"attenuation_limit": -1.0}, "dB"),
        ({"bandwidth": "wide"}, "bandwidth"),
        ({"chunk_seconds": 0.0}, "chunk_seconds"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(SemambaError, match=message):
        Options(**options)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_blocks_of_any_size_give_the_same(tiny: Enhancer, rate: int) -> None:
    wave = noise(2, 50_001)
    whole = run(tiny.engine(2, rate, Options(pcs=True)), wave, 10**6)
    for step in (997, 12_345):
        assert np.allclose(run(tiny.engine(2, rate, Options(pcs=True)), wave, step), whole, atol=2e-5)


def test_contrast_stretching_equals_the_plain_function() -> None:
    wave = noise(2, 30_000)
    made = run(engine(make_scale(True), 2, 16_000, Options(pcs=True)), wave)
    assert np.allclose(made, pcs.stretch(wave), atol=1e-4)


def test_level_of_a_long_stretched_signal_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semamba.inference.stretch.FIRST", 8000)
    monkeypatch.setattr("semamba.inference.stretch.STEP", 4000)
    wave = noise(2, 100_001)
    stretcher = LevelledStretcher(2)
    pieces = [stretcher.push(wave[:, start : start + 3000]) for start in range(0, wave.shape[1], 3000)]
    made = np.concatenate([*pieces, stretcher.finish()], axis=1)
    assert made.shape == wave.shape
    assert np.allclose(pcs.energy(made), pcs.energy(wave), rtol=1e-2)


def test_invalid_samples_become_silence_and_are_counted(identity: Enhancer) -> None:
    wave = noise(2, 30_000)
    wave[0, 1000:1010], wave[1, 5], wave[1, 7] = np.nan, np.inf, -np.inf
    engine = identity.engine(2, 16_000)
    made = run(engine, wave)
    assert engine.invalid == 12 and np.isfinite(made).all()
    assert np.allclose(made, np.where(np.isfinite(wave), wave, 0), atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_memory_does_not_grow_with_length(causal: bool) -> None:
    """Peak of all numpy memory while 10 and 40 s of 48 kHz stereo pass in blocks: the same."""
    peaks = []
    block = noise(2, 48_000)
    for seconds in (10, 40):
        stage = engine(make_scale(causal), 2, 48_000, Options(pcs=False, chunk_seconds=2.0))
        tracemalloc.start()
        given = sum(stage.push(block).shape[1] for _ in range(seconds)) + stage.finish().shape[1]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert given == seconds * 48_000
    assert peaks[1] < 1.1 * peaks[0]


def test_rates_that_are_none() -> None:
    with pytest.raises(SemambaError, match="sample rate"):
        engine(make_scale(True), 1, 0, Options())
