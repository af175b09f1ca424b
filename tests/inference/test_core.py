"""The stage at 16 kHz: lengths, blocks, bounded work, states and failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from semamba.inference.core import CausalCore, ChunkCore, make_core
from semamba.inference.enhance import Enhancer
from semamba.spectrum import Spectrum

from .conftest import make_scale


def noise(channels: int, frames: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, frames)) * 0.1).astype(np.float32)


def run(core: CausalCore | ChunkCore, wave: np.ndarray, seed: int = 0, largest: int = 9000) -> np.ndarray:
    """Through the core in blocks of random size."""
    rng, pieces, start = np.random.default_rng(seed), [], 0
    while start < wave.shape[1]:
        size = int(rng.integers(0, largest))
        pieces.append(core.push(wave[:, start : start + size]))
        start += size
    return np.concatenate([*pieces, core.finish()], axis=1)


@pytest.mark.parametrize("frames", [0, 1, 255, 256, 257, 511, 512, 513, 16_000, 40_001])
@pytest.mark.parametrize("causal", [True, False])
def test_a_model_that_changes_nothing_gives_the_input_back(frames: int, causal: bool) -> None:
    wave = noise(2, frames)
    model = make_scale(causal, normalise="none" if causal else "rms")
    core = make_core(model, 2, chunk_seconds=0.5)
    made = run(core, wave)
    assert made.shape == wave.shape and np.allclose(made, wave, atol=1e-5)


def test_causal_blocks_equal_the_model_on_the_whole(tiny: Enhancer) -> None:
    wave, model = noise(2, 30_123), tiny.model
    spectrum = Spectrum(model.stft)
    with torch.inference_mode():
        whole = spectrum.synthesise(model(spectrum.analyse(torch.from_numpy(wave)))[0], wave.shape[1]).numpy()
    for seed in range(3):
        assert np.allclose(run(CausalCore(model, 2), wave, seed), whole, atol=1e-5)


def test_one_chunk_equals_the_model_on_the_whole() -> None:
    torch.manual_seed(0)
    model = make_scale(causal=False, gain=0.5, normalise="rms")
    wave = noise(1, 8000)
    made = run(ChunkCore(model, 1, 8000, 800), wave)
    assert np.allclose(made, wave * 0.5, atol=1e-5) and len(model.frames) == 1


def test_chunks_do_not_depend_on_blocks_and_stay_bounded() -> None:
    wave = noise(3, 100_000)
    results = []
    for seed in range(2):
        model = make_scale(causal=False, normalise="rms")
        results.append(run(ChunkCore(model, 3, 8000, 800), wave, seed))
        assert max(batch for batch, _ in model.frames) == 1
        assert max(count for _, count in model.frames) == 81
    assert np.array_equal(*results)


def test_the_last_chunk_is_as_long_as_the_others() -> None:
    model = make_scale(causal=False)
    run(ChunkCore(model, 1, 8000, 800), noise(1, 8100))
    assert [count for _, count in model.frames] == [81, 81]


def test_causal_calls_shrink_with_channels() -> None:
    model = make_scale(causal=True)
    CausalCore(model, 24).push(noise(24, 40_000))
    assert max(batch * count for batch, count in model.frames) * 256 <= 4 * 16_000


class Failing(torch.nn.Module):
    """Gives a NaN, and keeps it in its state, from one call on until it is started afresh."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        inner = make_scale(causal)
        self.config, self.stft, self.causal, self.normalise = inner.config, inner.stft, causal, "none"
        self.calls = 0

    def forward(self, spectrum: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.calls += 1
        state = torch.zeros(()) if state is None else state
        if self.calls == 2:
            state = state + float("nan")
        return spectrum + state, state


@pytest.mark.parametrize("causal", [True, False])
def test_a_model_that_fails_leaves_the_input_and_recovers(causal: bool) -> None:
    wave, model = noise(1, 40_000), Failing(causal)
    core = make_core(model, 1, chunk_seconds=0.5)
    made = np.concatenate([core.push(wave[:, i : i + 8192]) for i in range(0, 40_000, 8192)] + [core.finish()], axis=1)
    assert made.shape == wave.shape and np.isfinite(made).all() and core.replaced > 0
    assert np.allclose(made[:, 20_000:], wave[:, 20_000:], atol=1e-5)
    assert np.allclose(made[:, 8500:16_000], wave[:, 8500:16_000], atol=1e-5)
