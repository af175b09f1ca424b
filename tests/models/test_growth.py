"""A grown model enhances as the weights that it was given, learns in every part, and refuses what it cannot keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from semamba.errors import SemambaError
from semamba.models import build
from semamba.models.causal import CausalConfig, CausalModel
from semamba.models.growth import grow

SMALL = CausalConfig(channels=8, sub_bands=8, d_model=20, blocks=2, heads=2, d_state=4)  # rank of delta 2
WAYS = {
    "channels": {"channels": 12},
    "d_model": {"d_model": 40, "heads": 4},  # rank 3
    "expand": {"expand": 3},
    "blocks": {"blocks": 4},
    "everything": {"channels": 12, "d_model": 30, "heads": 3, "expand": 3, "blocks": 3},
}


def trained(config: CausalConfig) -> CausalModel:
    """Every weight away from where a fresh model has it."""
    torch.manual_seed(0)
    model = build(config)
    assert isinstance(model, CausalModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def grown(given: CausalModel, config: CausalConfig) -> CausalModel:
    torch.manual_seed(1)
    model = build(config)
    assert isinstance(model, CausalModel)
    model.load_state_dict(grow(model, given.config, given.state_dict()))
    return model


def spectrum() -> torch.Tensor:
    return torch.randn(2, 9, 257, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("frequency", ["attention", "mamba"])
@pytest.mark.parametrize("way", WAYS)
def test_a_grown_model_begins_as_the_given_one_and_learns_everywhere(way: str, frequency: str) -> None:
    small = trained(replace(SMALL, frequency=frequency))
    large = grown(small, replace(small.config, **WAYS[way]))
    assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in small.parameters())
    x = spectrum()
    expected = small(x)[0]
    assert (large(x)[0] - expected).abs().max() < 1e-4 * expected.abs().max()

    # Two steps: the first one moves what is zero, the second one reaches what only that lets through. (The bias of
    # keys changes nothing in a softmax, so a few of its values stand still.)
    optimiser = torch.optim.Adam(large.parameters(), 1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        (large(x)[0] - 0.5 * x).square().sum().backward()
        optimiser.step()
    for name, value in large.named_parameters():
        assert value.grad is not None
        still = (value.grad == 0).double().mean().item()
        assert still < 0.05, f"{name}: {still:.0%} of it does not learn"


def test_half_the_hop_begins_near_the_given_model() -> None:
    """A spectrum that stands still is remembered alike."""
    small = trained(SMALL)
    half = grown(small, replace(SMALL, stft=replace(SMALL.stft, hop_length=128)))
    frame = spectrum()[:, :1]

    def distance(often: torch.Tensor, once: torch.Tensor) -> torch.Tensor:
        """Of frames that end at the same time, (T,), relative."""
        return (often[:, 1::2] - once).square().sum((0, 2, 3)).sqrt() / once.square().sum((0, 2, 3)).sqrt()

    with torch.no_grad():
        for block in (*small.blocks, *half.blocks):
            block.time.dt_proj.weight.zero_()  # else delta depends on the frame, and half of its bias is not half of it
        before, after = small(frame.repeat(1, 40, 1, 1))[0], half(frame.repeat(1, 80, 1, 1))[0]
    error = distance(after, before)
    assert error[:6].max() < 0.02 and error[6:].max() < 2e-4, error  # six frames: two convolutions after the level
    with torch.no_grad():  # and without the change it would not
        half.load_state_dict(small.state_dict())
        plain = half(frame.repeat(1, 80, 1, 1))[0]
    assert distance(plain, before)[6:].max() > 3 * error[6:].max()


def test_half_the_hop_beside_every_other_way() -> None:
    small = trained(SMALL)
    both = {**WAYS["everything"], "stft": replace(SMALL.stft, hop_length=128)}
    step = grown(small, replace(SMALL, stft=both["stft"]))
    x = spectrum()
    expected = step(x)[0]
    assert (grown(small, replace(SMALL, **both))(x)[0] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_weights_of_the_same_size_are_taken_as_they_are() -> None:
    small = trained(SMALL)
    same = grown(small, SMALL).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in small.state_dict().items())


def test_weights_are_stored_in_half_and_grow_in_full() -> None:
    small = trained(SMALL)
    half = {name: value.half() for name, value in small.state_dict().items()}
    state = grow(grown(small, replace(SMALL, channels=12)), SMALL, half)
    assert all(value.dtype == torch.float32 for value in state.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "mapping"}, r"model\.output: complex_mask in the weights given, not mapping"),
        ({"sub_bands": 9}, r"model\.sub_bands: 8 in the weights given, not 9"),
        ({"d_state": 5}, r"model\.d_state"),
        ({"stft": replace(SMALL.stft, hop_length=64)}, r"model\.stft: .*hop_length may be halved"),
        ({"stft": replace(SMALL.stft, hop_length=128, window="hann")}, r"model\.stft"),
        ({"frequency": "mamba"}, r"model\.frequency"),
        ({"channels": 7}, "larger model"),
        ({"blocks": 1}, "larger model"),
        ({"d_model": 40}, r"model\.heads: must be 4"),
    ],
)
def test_what_cannot_be_kept_is_refused(changes: dict[str, object], message: str) -> None:
    small = trained(SMALL)
    with pytest.raises(SemambaError, match=message):
        grown(small, replace(SMALL, **changes))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_model_on_a_gpu_grows_from_weights_in_main_memory() -> None:
    small = trained(SMALL)
    model = build(replace(SMALL, channels=12)).cuda()
    assert isinstance(model, CausalModel)
    model.load_state_dict(grow(model, SMALL, small.state_dict()))
    x = spectrum()
    assert (model(x.cuda())[0].cpu() - small(x)[0]).abs().max() < 1e-3
