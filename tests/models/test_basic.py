"""The basic model: noisy phase kept, causal variants stream."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semamba.errors import SemambaError
from semamba.models.advanced import AdvancedConfig, AdvancedModel
from semamba.models.basic import BasicConfig, BasicModel
from semamba.models.complexity import profile
from semamba.models.mixers import MixerConfig
from semamba.spectrum import Spectrum, StftConfig

KINDS = ("mamba", "lstm", "transformer")


def small(kind: str, bidirectional: bool) -> BasicModel:
    torch.manual_seed(1)
    mixer = MixerConfig(kind, bidirectional, expand=2, d_state=4, heads=2, head_dim=4, context=6)  # type: ignore[arg-type]
    stft = StftConfig(32, 16, "hann", "centred" if bidirectional else "causal", "log1p")
    return BasicModel(BasicConfig(stft=stft, channels=(12, 8), mixer=mixer)).eval()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 14), max_size=5))
def test_splitting_a_signal_changes_nothing(kind: str, cuts: list[int]) -> None:
    model = small(kind, bidirectional=False)
    x = torch.randn(2, 15, 17, 2)
    edges = [0, *sorted(cuts), 15]  # equal cuts give pieces without frames
    with torch.no_grad():
        whole, _ = model(x)
        state, pieces = None, []
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            y, state = model(x[:, start:stop], state)
            pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_causal_model_does_not_see_the_future(kind: str) -> None:
    model = small(kind, bidirectional=False)
    x = torch.randn(1, 10, 17, 2)
    changed = x.clone()
    changed[:, 6:] = 0
    torch.testing.assert_close(model(changed)[0][:, :6], model(x)[0][:, :6])


@pytest.mark.parametrize("kind", [*KINDS, "conformer"])
def test_a_model_with_both_directions_refuses_a_state(kind: str) -> None:
    model = small(kind, bidirectional=True)
    x = torch.randn(1, 10, 17, 2)
    assert not model.causal and model(x)[1] is None
    with pytest.raises(ValueError, match="needs the future"):
        model(x, object())


def test_the_phase_stays_and_the_magnitude_shrinks() -> None:
    model = small("mamba", bidirectional=True)
    x = torch.randn(2, 10, 17, 2)
    y, _ = model(x)
    ratio = torch.view_as_complex(y) / torch.view_as_complex(x)
    torch.testing.assert_close(ratio.imag, torch.zeros_like(ratio.imag), atol=1e-6, rtol=0)
    assert (ratio.real > 0).all() and (ratio.real < 1).all()


def test_silence_stays_silent_with_finite_gradients() -> None:
    model = small("mamba", bidirectional=False)
    x = torch.zeros(1, 5, 17, 2, requires_grad=True)
    y, _ = model(x)
    y.sum().backward()
    assert (y == 0).all()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_direction_of_the_mixer_makes_the_model_causal() -> None:
    config = BasicConfig()
    assert not config.causal
    assert replace(config, mixer=MixerConfig(bidirectional=False)).causal


def test_a_model_in_chunks_waits_no_longer_than_its_latency_says() -> None:
    """From waveform to waveform: a changed sample changes nothing that lies further back than the stated latency."""
    stft = StftConfig(n_fft=64, hop_length=16, window="hann", framing="causal", compression="log1p")
    config = BasicConfig(stft=stft, channels=(8, 8), mixer=MixerConfig(expand=2, d_state=4, chunk=5))
    assert not config.causal and config.lookahead == 4
    torch.manual_seed(0)
    model, spectrum = BasicModel(config).eval(), Spectrum(stft)
    wave = torch.randn(1, 640)

    def enhance(x: torch.Tensor) -> torch.Tensor:
        return spectrum.synthesise(model(spectrum.analyse(x))[0], x.shape[-1])

    latency = round(16 * profile(config).latency_ms)  # in samples
    assert latency == 64 + 4 * 16
    reach = 0
    with torch.no_grad():
        before = enhance(wave)
        for position in range(0, 640, 7):
            changed = wave.clone()
            changed[:, position] += 1.0
            touched = (enhance(changed) - before).abs()[0].gt(1e-6).nonzero()
            reach = max(reach, position - int(touched.min()))
    assert 4 * 16 < reach < latency


def test_an_advanced_model_makes_no_promise_about_latency() -> None:
    with pytest.raises(SemambaError, match="mixer.chunk"):
        AdvancedModel(AdvancedConfig(mixer=MixerConfig(chunk=4)))


def test_a_causal_model_cannot_use_the_level_of_the_whole() -> None:
    config = small("mamba", False).config
    with pytest.raises(SemambaError, match="normalise"):
        BasicModel(replace(config, normalise="rms"))
