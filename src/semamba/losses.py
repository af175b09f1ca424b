"""Every loss term of the enhancer, returned by name, and the loss of the discriminator that one of them listens to.

Letters: B batch, T frames, F frequency bins. Spectra are compressed pairs (B, T, F, 2), last axis (re, im), as
`spectrum.Spectrum.analyse` gives them; waves are (B, n). Terms follow Chao et al. 2024 (arXiv 2405.06573) and MP-SENet
(Lu et al. 2023): magnitude, anti-wrapped phase, complex (x2), waveform L1, consistency (x2), and the metric term, a
discriminator's opinion (MetricGAN, Fu et al. 2019). Three optional terms are not in the paper: SI-SDR, a
multi-resolution spectrum on the compressed magnitude, and a differentiable relative of PESQ (see `perceptual`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from semamba import perceptual
from semamba.spectrum import Spectrum, magnitude

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256))  # (n_fft, hop) of the multi-resolution term, for 16 kHz
PHASE_EPSILON = 1e-3  # squared compressed magnitude below which a bin's phase gradient fades out
AUDIBLE = 1e-6  # mean square below which a target counts as silent

Discriminator = Callable[[Tensor, Tensor], Tensor]  # compressed magnitudes (B, T, F) of clean, enhanced -> scores (B,)


@dataclass(frozen=True)
class LossConfig:
    """Weight of each term; one of weight zero is not computed. The defaults are the paper's without its metric term."""

    magnitude: float = 0.9
    phase: float = 0.3
    complex: float = 0.1
    time: float = 0.2
    consistency: float = 0.1
    si_sdr: float = 0.0
    multi_resolution: float = 0.0
    perceptual: float = 0.0
    metric: float = 0.0  # any other value trains a discriminator beside the model; the paper's is 0.05
    magnitude_norm: Literal["mse", "l1"] = "mse"

    def weights(self) -> dict[str, float]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "magnitude_norm"}


def compute(
    config: LossConfig,
    spectrum: Spectrum,
    enhanced_spec: Tensor,
    clean_spec: Tensor,
    enhanced_wave: Tensor,
    clean_wave: Tensor,
    discriminator: Discriminator | None = None,
) -> dict[str, Tensor]:
    """Unweighted scalar terms, in float32 whatever the autocast state; `total` applies the weights.

    Raises ValueError when the metric term is wanted and there is no discriminator.
    """
    with torch.autocast(enhanced_spec.device.type, enabled=False):
        enhanced_spec, clean_spec = enhanced_spec.float(), clean_spec.float()
        enhanced_wave, clean_wave = enhanced_wave.float(), clean_wave.float()
        terms: dict[str, Tensor] = {}
        if config.magnitude:
            distance = functional.mse_loss if config.magnitude_norm == "mse" else functional.l1_loss
            terms["magnitude"] = distance(magnitude(enhanced_spec), magnitude(clean_spec))
        if config.phase:
            terms["phase"] = phase_loss(enhanced_spec, clean_spec)
        if config.complex:
            terms["complex"] = 2 * functional.mse_loss(enhanced_spec, clean_spec)
        if config.time:
            terms["time"] = functional.l1_loss(enhanced_wave, clean_wave)
        if config.consistency or config.metric:
            heard = spectrum.analyse(enhanced_wave)
        if config.consistency:
            terms["consistency"] = 2 * functional.mse_loss(enhanced_spec, heard)
        if config.si_sdr:
            terms["si_sdr"] = si_sdr_loss(enhanced_wave, clean_wave)
        if config.multi_resolution:
            terms["multi_resolution"] = multi_resolution_loss(enhanced_wave, clean_wave)
        if config.perceptual:
            terms["perceptual"] = perceptual_loss(enhanced_wave, clean_wave)
        if config.metric:
            if discriminator is None:
                raise ValueError("the metric term needs a discriminator")
            score = discriminator(magnitude(clean_spec), magnitude(heard))
            terms["metric"] = ((score - 1).square() * audible(clean_wave)).mean()
    return terms


def discriminator_loss(
    discriminator: Discriminator, spectrum: Spectrum, clean: Tensor, enhanced: Tensor, labels: Tensor
) -> Tensor:
    """Squared errors of (clean, clean) -> 1 and (clean, enhanced) -> label for waves (B, n) and labels (B,).

    A label that is NaN (PESQ failed) leaves out that item's second error; a silent target leaves out both. The sum is
    divided by B all the same, so that an item weighs as much in whatever batch, micro-batch or process it lies.
    """
    with torch.autocast(clean.device.type, enabled=False):
        size, known = magnitude(spectrum.analyse(clean)), ~labels.isnan()
        other = magnitude(spectrum.analyse(enhanced))
        # one call for both halves: spectral normalisation takes one step of its power iteration per call
        real, made = discriminator(torch.cat([size, size]), torch.cat([size, other])).chunk(2)
        errors = (real - 1).square() + torch.where(known, made - labels.nan_to_num(), 0.0).square()
        return (errors * audible(clean)).mean()


def audible(clean: Tensor) -> Tensor:
    """(B, n) -> (B,): 1 where the target is not silent, else 0."""
    return (clean.square().mean(-1) > AUDIBLE).float()


def total(config: LossConfig, terms: dict[str, Tensor]) -> Tensor:
    """Weighted sum of the terms."""
    weights = config.weights()
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def bounded_phase(spec: Tensor) -> Tensor:
    """Angle of (B, T, F, 2) whose gradient fades out below PHASE_EPSILON instead of growing as 1 / magnitude.

    The second summand is zero in value; its derivative is that of atan2 with a regularised denominator.
    """
    re, im = spec.unbind(-1)
    a, b = re.detach(), im.detach()
    return torch.atan2(b, a) + (a * im - b * re) / (a * a + b * b + PHASE_EPSILON)


def phase_loss(enhanced_spec: Tensor, clean_spec: Tensor) -> Tensor:
    """Instantaneous phase + group delay (along F) + integrated absolute frequency (along T), anti-wrapped radians."""
    error = bounded_phase(enhanced_spec) - bounded_phase(clean_spec)
    return sum((anti_wrap(e).mean() for e in _differences(error)), torch.zeros((), device=error.device))


def _differences(error: Tensor) -> Iterator[Tensor]:
    yield error
    yield error.diff(dim=2)
    if error.shape[1] > 1:
        yield error.diff(dim=1)


def anti_wrap(angle: Tensor) -> Tensor:
    """Distance of an angle from the nearest multiple of 2 pi, in [0, pi]."""
    return (angle - (angle.detach() / (2 * math.pi)).round() * (2 * math.pi)).abs()


def si_sdr_loss(enhanced: Tensor, clean: Tensor) -> Tensor:
    """Negative scale-invariant SDR in dB, averaged over the items whose target is not silent (0 when none is)."""
    enhanced, clean = enhanced - enhanced.mean(-1, keepdim=True), clean - clean.mean(-1, keepdim=True)
    energy = clean.square().sum(-1)
    target = (enhanced * clean).sum(-1, keepdim=True) / (energy.unsqueeze(-1) + 1e-8) * clean
    ratio = (target.square().sum(-1) + 1e-8) / ((enhanced - target).square().sum(-1) + 1e-8)
    heard = audible(clean)
    return -(10 * torch.log10(ratio) * heard).sum() / heard.sum().clamp(min=1)


def perceptual_loss(enhanced: Tensor, clean: Tensor) -> Tensor:
    """PESQ-like distance (see `perceptual`), averaged over the items whose target is not silent (0 when none is)."""
    heard = audible(clean)
    return (perceptual.distance(enhanced, clean) * heard).sum() / heard.sum().clamp(min=1)


def multi_resolution_loss(enhanced: Tensor, clean: Tensor, power: float = 0.3) -> Tensor:
    """L1 between compressed magnitudes at three resolutions, averaged."""
    parts = []
    for n_fft, hop in RESOLUTIONS:
        window = torch.hann_window(n_fft, device=enhanced.device)
        spectra = torch.stft(torch.cat([enhanced, clean]), n_fft, hop, window=window, return_complex=True)
        squared = spectra.real.square() + spectra.imag.square()
        first, second = ((squared + 1e-5) ** (power / 2)).chunk(2)  # the floor bounds the slope of x^0.15 at silence
        parts.append(functional.l1_loss(first, second))
    return torch.stack(parts).mean()
