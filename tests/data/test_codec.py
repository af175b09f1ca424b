"""The codec by rule: exact without rounding, worse with a larger step, silent where the input is."""

from __future__ import annotations

import pytest
import torch

from semamba.data.codec import EDGES_HZ, M, squeeze


def speech_like(length: int = 16000) -> torch.Tensor:
    time = torch.arange(length) / 16000
    tone = sum(torch.sin(2 * torch.pi * 140 * k * time) / k for k in range(1, 40))
    generator = torch.Generator().manual_seed(0)
    return 0.05 * tone * (1 + torch.sin(2 * torch.pi * 4 * time)) + 1e-3 * torch.randn(length, generator=generator)


def error_db(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(10 * torch.log10((x - y).square().mean() / x.square().mean()))


@pytest.mark.parametrize("length", [1, M - 1, M, 2 * M + 3, 16000])
def test_a_step_of_zero_changes_nothing(length: int) -> None:
    x = torch.randn(3, length, generator=torch.Generator().manual_seed(1)) * 0.1
    y = squeeze(x, torch.zeros(3, 1))
    assert y.shape == x.shape
    assert torch.allclose(y, x, atol=1e-6)


def test_a_larger_step_is_worse_and_rows_do_not_meet() -> None:
    steps = torch.tensor([[0.1], [0.3], [1.0], [2.5]])
    x = speech_like().expand(4, -1)
    y = squeeze(x, steps)
    errors = [error_db(x[0], row) for row in y]
    assert errors == sorted(errors) and errors[0] < -25 and -10 < errors[-1] < 0
    assert torch.allclose(y[2:3], squeeze(x[2:3], steps[2:3]), atol=1e-6)


def test_a_large_step_leaves_holes_in_the_spectrum() -> None:
    x = torch.randn(1, 16000, generator=torch.Generator().manual_seed(2)) * 0.1

    def share_of_holes(wave: torch.Tensor) -> float:
        power = torch.stft(wave, 640, 320, window=torch.hann_window(640), return_complex=True).abs().square()
        return float((power < 0.01 * power.mean()).float().mean())

    assert share_of_holes(squeeze(x, torch.full((1, 1), 2.5))) > 3 * share_of_holes(x)


def test_level_does_not_matter_and_silence_stays() -> None:
    x, step = speech_like()[None], torch.full((1, 1), 1.5)
    assert torch.allclose(squeeze(0.01 * x, step), 0.01 * squeeze(x, step), atol=2e-6)
    assert not squeeze(torch.zeros(1, 1000), step).any()


def test_bands_reach_the_nyquist_frequency() -> None:
    assert EDGES_HZ[0] == 0 and EDGES_HZ[-1] == 8000 and list(EDGES_HZ) == sorted(EDGES_HZ)
