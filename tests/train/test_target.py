"""The stretched target equals `pcs.stretch` at one level, whatever the level of the pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semamba import pcs
from semamba.train.step import start, train_step
from semamba.train.target import PCS_RMS, rms, stretch
from tests.train import tiny


@pytest.mark.parametrize("length", [401, 4096, 4100, 4199])
def test_stretching_is_that_of_pcs_and_keeps_the_level(length: int) -> None:
    wave = torch.randn(2, length, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [1e-3]])
    made = stretch(wave)
    torch.testing.assert_close(rms(made), rms(wave), rtol=1e-4, atol=0)
    for row, given in zip(made, wave, strict=True):
        level = float(given.square().mean().sqrt())
        expected = pcs.stretch((given * PCS_RMS / level).numpy()) * level / PCS_RMS
        np.testing.assert_allclose(row.numpy(), expected, atol=2e-4 * level)


def test_silence_stays_silent() -> None:
    assert torch.equal(stretch(torch.zeros(1, 4096)), torch.zeros(1, 4096))


def test_the_step_trains_towards_the_stretched_signal() -> None:
    noisy, clean = next(tiny.batches(0))
    plain, stretched = (start(tiny.recipe(target={"pcs": pcs_on}), torch.device("cpu")) for pcs_on in (False, True))
    by_hand = train_step(plain, noisy, stretch(clean), 0.0)
    by_recipe = train_step(stretched, noisy, clean, 0.0)
    assert float(by_hand["loss"]) == pytest.approx(float(by_recipe["loss"]), rel=1e-4)
    assert float(train_step(plain, noisy, clean, 0.0)["loss"]) != pytest.approx(float(by_recipe["loss"]), rel=1e-3)
