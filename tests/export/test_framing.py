"""The NumPy framing is that of semamba.spectrum."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from semamba.export.framing import Framing
from semamba.spectrum import Spectrum, StftConfig

CONFIGS = [
    StftConfig(n_fft=n_fft, hop_length=hop, window=window, framing=framing, compression=compression)
    for n_fft, hop, window, compression in (
        (512, 256, "sqrt_hann", "power"),
        (400, 100, "hann", "power"),
        (256, 64, "hann", "log1p"),
        (128, 64, "sqrt_hann", "none"),
    )
    for framing in ("causal", "centred")
]


def waves(length: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(length).standard_normal((2, length))).astype(np.float32)


@pytest.mark.parametrize("config", CONFIGS)
def test_analysis_and_synthesis(config: StftConfig) -> None:
    framing, spectrum = Framing(dataclasses.asdict(config)), Spectrum(config)
    for length in (1, 100, 1000, 1024):
        if config.framing == "centred":
            wave = waves(length)
            bins = framing.analyse(wave)
            # Compression makes what is nothing but rounding a thousand times as large.
            np.testing.assert_allclose(bins, spectrum.analyse(torch.from_numpy(wave)).numpy(), atol=1e-4)
            np.testing.assert_allclose(framing.synthesise(bins, length), wave, atol=1e-5)
            continue
        length = length // config.hop_length * config.hop_length + config.hop_length
        before = after = expected_before = expected_after = None
        for _ in range(3):
            wave = waves(length)
            bins, before = framing.analyse_stream(wave, before)
            expected, expected_before = spectrum.analyse_stream(torch.from_numpy(wave), expected_before)
            np.testing.assert_allclose(bins, expected.numpy(), atol=1e-4)
            result, after = framing.synthesise_stream(bins, after)
            expected, expected_after = spectrum.synthesise_stream(expected, expected_after)
            np.testing.assert_allclose(result, expected.numpy(), atol=1e-5)
            np.testing.assert_allclose(after, expected_after.numpy(), atol=1e-5)
