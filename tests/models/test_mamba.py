"""The Mamba layer: published shapes and start values, both directions, both axes, state."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semamba.models.mamba import Mamba, MambaConfig, MambaState, RMSNorm
from semamba.ops import using


def layer(d: int = 20, reverse: bool = False, **sizes: int) -> Mamba:
    torch.manual_seed(0)
    return Mamba(MambaConfig(d, **sizes), reverse)


def test_names_and_shapes_of_mamba_ssm() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in layer(40, expand=4).state_dict().items()}
    assert shapes == {
        "A_log": (160, 16),
        "D": (160,),
        "in_proj.weight": (320, 40),
        "conv1d.weight": (160, 1, 4),
        "conv1d.bias": (160,),
        "x_proj.weight": (3 + 32, 160),  # rank ceil(40 / 16)
        "dt_proj.weight": (160, 3),
        "dt_proj.bias": (160,),
        "out_proj.weight": (40, 160),
    }


def test_start_values() -> None:
    """S4D-real A, and steps between 1 ms and 100 ms (Mamba, section 3.6)."""
    mamba = layer(64)
    assert torch.allclose(-mamba.A_log.exp(), -torch.arange(1.0, 17.0).expand(128, 16), rtol=1e-5)
    step = F.softplus(mamba.dt_proj.bias)
    assert bool((step > 0.99e-3).all()) and bool((step < 0.101).all())
    assert float(step.detach().log().std()) > 1  # spread over the decades, not in one place
    assert bool((mamba.D == 1).all())
    bound = mamba.config.dt_rank**-0.5
    assert bool((mamba.dt_proj.weight.abs() <= bound).all())


def test_against_the_published_equations() -> None:
    """Step by step as written down in the paper, in float64."""
    mamba = layer(8, expand=2, d_state=3).double()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    u, z = mamba.in_proj(x).chunk(2, -1)
    u = F.silu(mamba.conv1d(F.pad(u.transpose(1, 2), (3, 0)))[..., :9].transpose(1, 2))
    delta, b, c = mamba.x_proj(u).split([1, 3, 3], -1)
    delta = F.softplus(mamba.dt_proj(delta))
    h = torch.zeros(2, 16, 3, dtype=torch.float64)
    rows = []
    for t in range(9):
        decay = torch.exp(delta[:, t, :, None] * -torch.exp(mamba.A_log))
        h = decay * h + delta[:, t, :, None] * b[:, t, None] * u[:, t, :, None]
        rows.append((h @ c[:, t, :, None])[..., 0] + mamba.D * u[:, t])
    expected = mamba.out_proj(torch.stack(rows, 1) * F.silu(z))
    assert torch.allclose(mamba(x)[0], expected, atol=1e-12)
    assert torch.allclose(mamba.float()(x.float())[0].double(), expected, atol=1e-5)


@pytest.mark.parametrize("d", [20, 136])  # fused, and composed around the scan
@settings(max_examples=10, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 23), max_size=4))
def test_splitting_changes_nothing(d: int, cuts: list[int]) -> None:
    mamba, x = layer(d), torch.randn(2, 23, d)
    edges = [0, *sorted(cuts), 23]
    pieces, state = [], None
    with torch.no_grad():
        whole, end = mamba(x)
        for a, b in zip(edges, edges[1:], strict=False):
            piece, state = mamba(x[:, a:b], state)
            pieces.append(piece)
    assert state is not None
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)
    assert torch.allclose(state.conv, end.conv, atol=1e-5) and torch.allclose(state.scan, end.scan, atol=1e-5)


@pytest.mark.parametrize("d", [20, 136])
def test_the_past_does_not_see_the_future(d: int) -> None:
    mamba, x = layer(d), torch.randn(2, 23, d)
    changed = x.clone()
    changed[:, 11:] += 5
    with torch.no_grad():
        before, after = mamba(x)[0], mamba(changed)[0]
    assert torch.equal(before[:, :11], after[:, :11]) and not torch.equal(before[:, 11:], after[:, 11:])


@pytest.mark.parametrize("d", [20, 136])
def test_reading_backwards_is_reading_the_flipped_sequence(d: int) -> None:
    ahead, back, x = layer(d), layer(d, reverse=True), torch.randn(2, 23, d)
    with torch.no_grad():
        assert torch.allclose(back(x)[0], ahead(x.flip(1))[0].flip(1), atol=1e-6)
    state = MambaState(torch.zeros(2, 3, 2 * d), torch.zeros(2, 2 * d, 16))
    with pytest.raises(ValueError, match="backwards"):
        back(x, state)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_residual_runs_along_either_axis(axis: int, reverse: bool) -> None:
    mamba, norm, x = layer(20, reverse), RMSNorm(20), torch.randn(2, 5, 7, 20)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        y, _ = mamba.residual(x, norm, axis)
        moved = x.transpose(1, 2) if axis == 1 else x
        sequences = moved.flatten(0, 1)
        expected = (sequences + mamba(norm(sequences))[0]).reshape(moved.shape)
    assert torch.allclose(y, expected.transpose(1, 2) if axis == 1 else expected, atol=1e-5)


def test_training_over_carried_blocks() -> None:
    """The state carries no gradient, so each block has its own backward pass."""
    mamba, norm = layer(20), RMSNorm(20)
    state = None
    for _ in range(3):
        y, state = mamba.residual(torch.randn(1, 4, 2, 20), norm, 1, state)
        y.square().sum().backward()
        assert not state.conv.requires_grad and not state.scan.requires_grad
    assert all(bool(p.grad.isfinite().all()) for p in mamba.parameters() if p.grad is not None)


def test_rms_norm() -> None:
    norm, x = RMSNorm(12), 3 * torch.randn(4, 12)
    y = norm(x)
    assert torch.allclose(y.square().mean(-1), torch.ones(4), atol=1e-4)
    assert torch.equal(norm(torch.zeros(2, 12)), torch.zeros(2, 12))


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("backend", ["reference", None])
def test_short_sequences(length: int, backend: str | None) -> None:
    mamba, x = layer(), torch.randn(2, length, 20)
    if backend is None:
        y, state = mamba(x)
    else:
        with using(backend):  # type: ignore[arg-type]
            y, state = mamba(x)
    assert y.shape == x.shape and state.conv.shape == (2, 3, 40) and state.scan.shape == (2, 40, 16)
    assert not length or torch.equal(state.conv[:, :2], torch.zeros(2, 2, 40))
