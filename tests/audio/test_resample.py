"""Sample-rate conversion: lengths, alignment, blocks."""

from __future__ import annotations

import numpy as np
import pytest

from semamba import audio


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_there_and_back_keeps_length_and_place(rate: int) -> None:
    time = np.arange(rate // 2 + 77) / rate
    wave = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 1000 * time)]).astype(np.float32)
    back = audio.resample(audio.resample(wave, rate, 16_000), 16_000, rate, length=wave.shape[1])
    assert back.shape == wave.shape
    inner = slice(rate // 20, -rate // 20)
    assert np.abs(back - wave)[:, inner].max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 44_100, 192_000])
def test_blocks_equal_the_whole(rate: int) -> None:
    rng = np.random.default_rng(0)
    wave = rng.standard_normal((2, 30_001)).astype(np.float32)
    stream, pieces, start = audio.StreamResampler(2, rate, 16_000), [], 0
    while start < wave.shape[1]:
        size = int(rng.integers(0, 5000))
        pieces.append(stream.push(wave[:, start : start + size]))
        start += size
    length = round(wave.shape[1] * 16_000 / rate)
    joined = np.concatenate([*pieces, stream.finish(length)], axis=1)
    whole = audio.StreamResampler(2, rate, 16_000)
    assert np.allclose(joined, np.concatenate([whole.push(wave), whole.finish(length)], axis=1), atol=1e-6)


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_tiny(frames: int) -> None:
    assert audio.resample(np.ones((2, frames), np.float32), 192_000, 16_000, length=1).shape == (2, 1)
    assert audio.resample(np.ones(frames, np.float32), 8000, 16_000).shape == (2 * frames,)


def test_the_same_rate_changes_nothing() -> None:
    wave = np.random.default_rng(0).standard_normal((1, 100)).astype(np.float32)
    assert np.array_equal(audio.resample(wave, 16_000, 16_000), wave)
