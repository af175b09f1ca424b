"""The PESQ-like distance: order, calibration, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from semamba import perceptual


def speech_like(seconds: float = 1.0) -> Tensor:
    """(1, n): harmonics of 120 Hz under a syllable-like envelope."""
    t = torch.arange(int(16_000 * seconds)) / 16_000
    voice = torch.stack([torch.sin(2 * torch.pi * 120 * k * t) / k for k in range(1, 25)]).sum(0)
    return (0.1 * voice * (0.55 + 0.45 * torch.sin(2 * torch.pi * 4 * t)))[None]


def test_same_signal_has_no_distance_at_any_level() -> None:
    clean = speech_like()
    assert perceptual.distance(0.1 * clean, clean).item() < 1e-2


def test_distance_grows_with_noise() -> None:
    clean, noise = speech_like(), torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    distances = [perceptual.distance(clean + level * noise, clean).item() for level in (0.001, 0.01, 0.1)]
    assert distances == sorted(distances) and distances[2] > 2 * distances[0] > 0


def test_added_noise_costs_more_than_removed_harmonics_of_the_same_energy() -> None:
    clean = speech_like()
    t = torch.arange(16_000) / 16_000
    harmonic = 0.1 * torch.sin(2 * torch.pi * 1200 * t) / 10
    between = 0.1 * torch.sin(2 * torch.pi * 3500 * t) / 10  # where the voice has nothing
    assert perceptual.distance(clean + between, clean) > perceptual.distance(clean - harmonic, clean)


@pytest.mark.parametrize("target", ["speech", "silence"])
def test_gradients_are_finite(target: str) -> None:
    clean = speech_like() if target == "speech" else torch.zeros(1, 16_000)
    for start in (clean, torch.zeros_like(clean), torch.randn(1, 16_000)):
        enhanced = start.clone().requires_grad_()
        perceptual.distance(enhanced, clean).sum().backward()
        assert enhanced.grad is not None and torch.isfinite(enhanced.grad).all()


def test_items_do_not_mix() -> None:
    clean = torch.cat([speech_like(), 3 * speech_like()])
    noisy = clean + 0.02 * torch.randn(2, 16_000)
    together = perceptual.distance(noisy, clean)
    assert torch.allclose(together[1], perceptual.distance(noisy[1:], clean[1:])[0], atol=1e-5)


def test_forgives_a_steady_tone_control_and_a_slow_gain() -> None:
    """PESQ equalises the target and follows the gain: neither should cost what noise of the same energy costs."""
    clean = speech_like(2.0)
    tilted = clean - 0.5 * functional.pad(clean, (1, 0))[:, :-1]
    t = torch.arange(clean.shape[1]) / 16_000
    swelling = clean * (1 + 0.4 * torch.sin(2 * torch.pi * t))
    for changed in (tilted, swelling):
        error = (changed - clean).square().mean().sqrt()
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = clean + error * noise
        assert perceptual.distance(changed, clean) < 0.25 * perceptual.distance(noisy, clean)


def test_bands_cover_the_spectrum_once() -> None:
    tables = perceptual._tables(torch.device("cpu"))
    share = tables.bands.sum(1)  # of each bin
    assert torch.allclose(share[3:-1], torch.ones_like(share[3:-1]), atol=1e-5)  # from 94 Hz on
    assert tables.bands.sum(0).min() > 1  # each band has more than a bin


def test_follows_pesq_on_recorded_pairs(shared_dir) -> None:  # type: ignore[no-untyped-def]
    """Noisy, enhanced, and between: the differences inside a file matter as much as those between files."""
    pytest.importorskip("pesq")
    import numpy as np
    import soundfile

    import semamba
    from semamba.metrics.intrusive import pesq_wb, raw_pesq

    model = semamba.load("causal-small", device="cpu")
    raw, distances = [], []
    for path in sorted((shared_dir / "data/valid/paired/clean").glob("*.flac"))[:6]:
        clean, _ = soundfile.read(path, dtype="float32")
        noisy, _ = soundfile.read(path.parents[1] / "noisy" / path.name, dtype="float32")
        enhanced = np.asarray(model(noisy, 16_000), dtype=np.float32)
        heard = [noisy, 0.2 * noisy + 0.8 * clean, enhanced, 0.3 * noisy + 0.7 * enhanced]
        raw.append([raw_pesq(pesq_wb(clean, wave)) for wave in heard])
        waves = torch.tensor(np.stack(heard))
        distances.append(perceptual.distance(waves, torch.tensor(clean).expand_as(waves)).tolist())
    all_raw, all_distances = np.array(raw), np.array(distances)
    assert np.corrcoef(all_raw.ravel(), all_distances.ravel())[0, 1] < -0.98
    within = [(values - values.mean(1, keepdims=True)).ravel() for values in (all_raw, all_distances)]
    assert np.corrcoef(*within)[0, 1] < -0.98
    assert np.abs(4.5 - all_distances - all_raw).mean() < 0.3


def test_tables_made_in_inference_serve_training() -> None:
    perceptual._tables.cache_clear()
    clean = speech_like()
    with torch.inference_mode():
        perceptual.distance(clean, clean)
    enhanced = (0.9 * clean).requires_grad_()
    perceptual.distance(enhanced, clean).sum().backward()
    assert enhanced.grad is not None
