"""Loss terms: values by hand, finite gradients in silence, weights."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from semamba import losses
from semamba.losses import LossConfig
from semamba.spectrum import Spectrum, StftConfig

EVERY_TERM = LossConfig(si_sdr=0.01, multi_resolution=0.5, perceptual=0.01, metric=0.05)


@pytest.fixture(scope="module")
def spectrum() -> Spectrum:
    return Spectrum(StftConfig(framing="causal", window="sqrt_hann"))


def terms(config: LossConfig, spectrum: Spectrum, enhanced: Tensor, clean: Tensor) -> dict[str, Tensor]:
    spec = spectrum.analyse(enhanced)
    wave = spectrum.synthesise(spec, clean.shape[-1])
    return losses.compute(config, spectrum, spec, spectrum.analyse(clean), wave, clean, similarity)


def similarity(clean: Tensor, enhanced: Tensor) -> Tensor:
    """Stands for a discriminator: 1 for equal magnitudes (B, T, F), less for others."""
    return torch.exp(-(clean - enhanced).square().mean(dim=(1, 2)))


def test_equal_signals_cost_nothing(spectrum: Spectrum) -> None:
    clean = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    values = terms(dataclasses.replace(EVERY_TERM, si_sdr=0), spectrum, clean, clean)
    assert all(float(value) < 1e-4 for value in values.values()), values


def test_terms_of_weight_zero_are_absent_and_total_is_the_weighted_sum(spectrum: Spectrum) -> None:
    clean, enhanced = torch.randn(2, 4000), torch.randn(2, 4000)
    assert set(terms(EVERY_TERM, spectrum, enhanced, clean)) == set(EVERY_TERM.weights())
    config = LossConfig(magnitude=2.0, phase=0, complex=0, time=0.5, consistency=0)
    values = terms(config, spectrum, enhanced, clean)
    assert set(values) == {"magnitude", "time"}
    expected = 2 * values["magnitude"] + 0.5 * values["time"]
    torch.testing.assert_close(losses.total(config, values), expected)


@pytest.mark.parametrize("silent", ["enhanced", "clean", "both", "part"])
def test_gradients_are_finite_on_silence(spectrum: Spectrum, silent: str) -> None:
    generator = torch.Generator().manual_seed(1)
    signals = {name: torch.randn(2, 4000, generator=generator) for name in ("enhanced", "clean")}
    for name in signals:
        if silent in (name, "both"):
            signals[name].zero_()
    if silent == "part":
        signals["enhanced"][:, :2000] = 0
    clean_spec = spectrum.analyse(signals["clean"])
    spec = spectrum.analyse(signals["enhanced"]).requires_grad_()
    wave = spectrum.synthesise(spec, 4000)
    values = losses.compute(EVERY_TERM, spectrum, spec, clean_spec, wave, signals["clean"], similarity)
    losses.total(EVERY_TERM, values).backward()
    assert spec.grad is not None and bool(torch.isfinite(spec.grad).all())
    assert float(spec.grad.abs().max()) < 100


def test_anti_wrap_is_the_distance_to_a_full_turn() -> None:
    angle = torch.tensor([0.0, 1.0, -1.0, math.pi, 2 * math.pi, 2 * math.pi + 0.5, -6.0])
    expected = torch.tensor([0.0, 1.0, 1.0, math.pi, 0.0, 0.5, 2 * math.pi - 6.0])
    torch.testing.assert_close(losses.anti_wrap(angle), expected, atol=1e-5, rtol=0)


def test_bounded_phase_is_atan2_with_its_gradient_where_the_bin_is_loud() -> None:
    spec = torch.randn(1, 5, 7, 2, dtype=torch.float64) + 3
    first, second = spec.clone().requires_grad_(), spec.clone().requires_grad_()
    value, expected = losses.bounded_phase(first), torch.atan2(second[..., 1], second[..., 0])
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-2, atol=1e-4)


def test_phase_loss_ignores_whole_turns_and_sees_a_quarter_turn() -> None:
    clean = torch.randn(1, 6, 9, 2) + 2
    quarter = torch.stack([-clean[..., 1], clean[..., 0]], dim=-1)
    # a constant turn has no group delay error and no change along time: only the instantaneous phase term is left
    torch.testing.assert_close(losses.phase_loss(quarter, clean), torch.tensor(math.pi / 2), atol=1e-4, rtol=0)


def test_si_sdr_loss_by_hand_and_without_silent_targets() -> None:
    clean = torch.randn(2, 1000, generator=torch.Generator().manual_seed(2))
    clean -= clean.mean(-1, keepdim=True)
    noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(3))
    noise -= noise.mean(-1, keepdim=True)
    noise -= (noise * clean).sum(-1, keepdim=True) / clean.square().sum(-1, keepdim=True) * clean
    noise *= 0.1 * (clean.square().sum(-1, keepdim=True) / noise.square().sum(-1, keepdim=True)).sqrt()
    assert float(losses.si_sdr_loss(3 * (clean + noise), clean)) == pytest.approx(-20, abs=1e-2)
    with_silence = losses.si_sdr_loss(torch.cat([clean + noise, noise]), torch.cat([clean, 0 * clean]))
    assert float(with_silence) == pytest.approx(-20, abs=1e-2)
    assert float(losses.si_sdr_loss(noise, 0 * noise)) == 0


def test_the_metric_term_is_the_distance_from_1_and_leaves_out_silent_targets(spectrum: Spectrum) -> None:
    generator = torch.Generator().manual_seed(4)
    clean, enhanced = (torch.randn(2, 4000, generator=generator) for _ in range(2))
    clean[1] = 0
    config = LossConfig(magnitude=0, phase=0, complex=0, time=0, consistency=0, metric=1)
    value = terms(config, spectrum, enhanced, clean)["metric"]
    size, other = (losses.magnitude(spectrum.analyse(wave[:1])) for wave in (clean, enhanced))
    torch.testing.assert_close(value, (similarity(size, other)[0] - 1).square() / 2, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="needs a discriminator"):
        spec = spectrum.analyse(enhanced)
        losses.compute(config, spectrum, spec, spec, enhanced, clean)


def test_discriminator_loss_by_hand_with_a_missing_label_and_a_silent_target(spectrum: Spectrum) -> None:
    clean = torch.randn(3, 4000, generator=torch.Generator().manual_seed(5))
    clean[2] = 0
    scores = torch.tensor([0.8, 0.6, 0.4, 0.3, 0.2, 0.1])  # of (clean, clean), then of (clean, enhanced)

    def constant(first: Tensor, second: Tensor) -> Tensor:
        return scores

    labels = torch.tensor([0.5, math.nan, 0.5])
    value = losses.discriminator_loss(constant, spectrum, clean, clean + 0.1, labels)
    assert float(value) == pytest.approx((0.2**2 + 0.4**2 + 0.2**2) / 3)


def test_computed_in_float32_under_autocast(spectrum: Spectrum) -> None:
    clean = torch.randn(1, 4000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = terms(LossConfig(), spectrum, clean * 0.5, clean)
    assert all(value.dtype == torch.float32 for value in values.values())
