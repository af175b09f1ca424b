"""Spectra: exact inverses at every length, streaming, agreement with torch.stft, finite gradients."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semamba.spectrum import Spectrum, StftConfig, compress, decompress, magnitude, phase

SIZES = ((512, 256), (400, 100), (16, 4), (12, 6))
CONFIGS = [
    StftConfig(n_fft, hop, window, framing, compression)  # type: ignore[arg-type]
    for (n_fft, hop), window, framing, compression in product(
        SIZES, ("hann", "sqrt_hann"), ("centred", "causal"), ("power", "log1p", "none")
    )
]
CAUSAL = [c for c in CONFIGS if c.framing == "causal" and c.compression == "power"]
configs = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: "-".join(map(str, vars(c).values())))


def speech_like(batch: int, length: int, seed: int = 0) -> Tensor:
    """Noise of RMS near 0.1."""
    return 0.1 * torch.randn(batch, length, generator=torch.Generator().manual_seed(seed))


@configs
def test_synthesis_inverts_analysis(config: StftConfig) -> None:
    transform = Spectrum(config)
    n_fft, hop = config.n_fft, config.hop_length
    for length in (0, 1, 2, hop - 1, hop, hop + 1, n_fft // 2, n_fft // 2 + 1, n_fft - 1, n_fft, 3 * n_fft + 7):
        wave = speech_like(2, length)
        spectrum = transform.analyse(wave)
        assert spectrum.shape == (2, transform.frames(length), config.n_bins, 2)
        again = transform.synthesise(spectrum, length)
        assert again.shape == wave.shape
        assert torch.allclose(again, wave, atol=2e-6), f"length {length}"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(config=st.sampled_from([c for c in CONFIGS if c.n_fft <= 16]), length=st.integers(1, 80))
def test_every_length_comes_back(config: StftConfig, length: int) -> None:
    transform, wave = Spectrum(config), speech_like(1, length, seed=length)
    assert torch.allclose(transform.synthesise(transform.analyse(wave), length), wave, atol=2e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(config=st.sampled_from(CAUSAL), sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_streaming_equals_the_whole(config: StftConfig, sizes: list[int]) -> None:
    transform, hop = Spectrum(config), config.hop_length
    hops = sum(sizes)
    wave = speech_like(2, hops * hop)
    spectra, waves, past, tail = [], [], None, None
    start = 0
    for size in sizes:
        block = wave[:, start * hop : (start + size) * hop]
        spectrum, past = transform.analyse_stream(block, past)
        assert spectrum.shape[1] == size  # no sample in, none out
        spectra.append(spectrum)
        samples, tail = transform.synthesise_stream(spectrum, tail)
        waves.append(samples)
        start += size
    assert torch.allclose(torch.cat(spectra, 1), transform.analyse(wave)[:, :hops], atol=1e-5)
    # What has come out so far is the input, late by the overlap.
    out = torch.cat(waves, 1)
    lag = config.overlap
    assert out.shape == wave.shape
    assert torch.allclose(out[:, lag:], wave[:, : max(0, hops * hop - lag)], atol=2e-6)
    assert torch.allclose(out[:, :lag], torch.zeros(()), atol=2e-6)


@pytest.mark.parametrize("framing", ["centred", "causal"])
def test_a_frame_knows_only_its_samples(framing: str) -> None:
    config = StftConfig(framing=framing)  # type: ignore[arg-type]
    transform, wave = Spectrum(config), speech_like(1, 2560)
    changed = wave.clone()
    changed[:, 1280:] += 1
    same = (transform.analyse(wave) == transform.analyse(changed)).all(-1).all(-1)[0]
    # Causal frame t ends before sample (t + 1) hop, a centred one before t hop + n_fft / 2: here the same.
    assert bool(same[:5].all()) and not bool(same[5])


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
def test_centred_framing_is_torch_stft(n_fft: int, hop: int, window: str) -> None:
    config = StftConfig(n_fft, hop, window, "centred", "none")  # type: ignore[arg-type]
    wave = speech_like(2, 5 * n_fft)
    weights = torch.hann_window(n_fft)
    weights = weights.sqrt() if window == "sqrt_hann" else weights
    expected = torch.stft(wave, n_fft, hop, window=weights, center=True, return_complex=True)
    actual = Spectrum(config).analyse(wave)
    assert torch.allclose(actual, torch.view_as_real(expected.transpose(1, 2)), atol=1e-5)


def test_power_compression_as_published() -> None:
    """|X|^0.3 with the phase of X."""
    plain = Spectrum(StftConfig(compression="none")).analyse(speech_like(1, 2000))
    power = Spectrum(StftConfig(compression="power")).analyse(speech_like(1, 2000))
    log = Spectrum(StftConfig(compression="log1p")).analyse(speech_like(1, 2000))
    size = plain.norm(dim=-1)
    assert torch.allclose(magnitude(power), size**0.3, atol=1e-4)
    assert torch.allclose(magnitude(log), torch.log1p(size), atol=1e-5)
    clear = size > 1e-2
    for spectrum in (power, log):
        turned = (phase(spectrum) - phase(plain))[clear]
        assert torch.allclose(torch.cos(turned), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("compression", ["power", "log1p", "none"])
def test_compression_is_inverted_over_a_wide_range(compression: str) -> None:
    config = StftConfig(compression=compression)  # type: ignore[arg-type]
    size = torch.logspace(-3, 3, 61)
    angle = torch.linspace(-3.14, 3.14, 61)
    pairs = torch.stack([size * angle.cos(), size * angle.sin()], -1)
    again = decompress(compress(pairs, config), config)
    assert torch.allclose(again, pairs, rtol=2e-3)
    loud = size > 0.03
    assert torch.allclose(again[loud], pairs[loud], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("compression", ["power", "log1p", "none"])
def test_silence_has_finite_gradients_everywhere(compression: str) -> None:
    transform = Spectrum(StftConfig(compression=compression))  # type: ignore[arg-type]
    wave = torch.zeros(1, 1024, requires_grad=True)
    spectrum = transform.analyse(wave)
    assert not spectrum.any()
    again = transform.synthesise(spectrum, 1024)
    (again.sum() + magnitude(spectrum).sum() + phase(spectrum).sum()).backward()
    assert wave.grad is not None and bool(wave.grad.isfinite().all()) and not again.any()


def test_phase_covers_the_circle() -> None:
    angles = torch.linspace(-3.1, 3.1, 41)
    assert torch.allclose(phase(torch.stack([angles.cos(), angles.sin()], -1)), angles, atol=1e-6)
    assert phase(torch.zeros(1, 2)).item() == 0


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 200), (512, 512)])
def test_hops_that_cannot_be_inverted_are_refused(n_fft: int, hop: int) -> None:
    with pytest.raises(ValueError, match="hop_length"):
        Spectrum(StftConfig(n_fft, hop))
