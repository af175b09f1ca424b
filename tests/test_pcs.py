"""Contrast stretching: the published output, any length, blocks, level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semamba import audio, pcs


@pytest.mark.parametrize("name", ["p232_013", "p257_402"])
def test_published_output(shared_dir: Path, name: str) -> None:
    folder = shared_dir / "reference" / "pcs400"
    given, _ = audio.read(folder / f"{name}_enhanced.wav")
    wanted, _ = audio.read(folder / f"{name}_enhanced_pcs400.wav")
    made = pcs.stretch(given, peak_normalise=True)
    assert np.corrcoef(made[0], wanted[0])[0, 1] > 0.9999
    assert np.abs(made - wanted).max() < 1e-4


def test_factors_of_the_paper() -> None:
    factors = pcs.factors()
    assert factors.shape == (201,)
    pairs = {
        0: 1,
        2: 1,
        3: 1.0702,
        5: 1.1825,
        9: 1.2877,
        10: 1.4,
        109: 1.4,
        129: 1.3228,
        159: 1.2386,
        160: 1.1614,
        200: 1.0772,
    }
    assert all(factors[index] == np.float32(value) for index, value in pairs.items())


@pytest.mark.parametrize("frames", [0, 1, 2, 99, 100, 101, 199, 200, 201, 399, 400, 401, 1234])
@pytest.mark.parametrize("peak", [False, True])
def test_any_length(frames: int, peak: bool) -> None:
    wave = np.random.default_rng(0).standard_normal((2, frames)).astype(np.float32) * 0.1
    made = pcs.stretch(wave, peak_normalise=peak)
    assert made.shape == wave.shape and made.dtype == np.float32 and np.isfinite(made).all()
    assert np.array_equal(pcs.stretch(wave[0], peak_normalise=peak), made[0])


def test_level_is_restored_for_each_channel() -> None:
    wave = np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32) * np.array(
        [[0.1], [0.001]], np.float32
    )
    made = pcs.stretch(wave)
    assert np.allclose(np.square(made).mean(axis=1), np.square(wave).mean(axis=1), rtol=1e-4)
    assert np.allclose(np.abs(pcs.stretch(wave, peak_normalise=True)).max(axis=1), 1)


def test_silence_and_absurd_levels_stay_finite() -> None:
    assert not pcs.stretch(np.zeros(1000)).any()
    assert not pcs.stretch(np.zeros(1000), peak_normalise=True).any()
    assert np.isfinite(pcs.stretch(np.full(1000, 1e30))).all()


def test_blocks_equal_the_whole() -> None:
    rng = np.random.default_rng(0)
    wave = rng.standard_normal((2, 20_000)).astype(np.float32) * 0.1
    stream, pieces, start = pcs.Stretcher(2), [], 0
    while start < wave.shape[1]:
        size = int(rng.integers(0, 1500))
        pieces.append(stream.push(wave[:, start : start + size]))
        start += size
    made = np.concatenate([*pieces, stream.finish()], axis=1)
    once = pcs.Stretcher(2)
    whole = np.concatenate([once.push(wave), once.finish()], axis=1)
    assert made.shape == wave.shape and np.allclose(made, whole, atol=1e-6)
