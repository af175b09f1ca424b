"""The fused Mamba block against its composition in float64: outputs, states, every gradient, bad values, splitting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semamba.ops import BlockWeights, MambaState, cpu, cpu_layers, fused_pair, mamba_block, using
from tests.ops.cases import (
    FORWARD,
    assert_close,
    assert_same_gradients,
    available_instructions,
    captured_graphs,
    gradients,
    instructions,
    leaves,
    same_nan,
    threads,
)

needs_kernels = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "kernels are there")
isa = pytest.mark.parametrize("isa", available_instructions())


def block_weights(d: int, inner: int, n: int, rank: int, taps: int, norm: bool = True) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    return {
        "norm": 1 + normal(d, scale=0.3) if norm else None,
        "in_proj": normal(2 * inner, d, scale=d**-0.5),
        "conv_weight": normal(inner, 1, taps, scale=0.5),
        "conv_bias": normal(inner, scale=0.3),
        "x_proj": normal(rank + 2 * n, inner, scale=inner**-0.5),
        "dt_proj": normal(inner, rank, scale=rank**-0.5),
        "dt_bias": normal(inner) - 2,
        "A_log": normal(inner, n, scale=0.5),
        "D": normal(inner),
        "out_proj": normal(d, inner, scale=inner**-0.5),
    }


def run(
    x: Tensor, weights: dict[str, Tensor | None], state: MambaState | None = None, **flags: bool
) -> tuple[Tensor, MambaState]:
    return mamba_block(x, BlockWeights(**weights), state, **flags)  # type: ignore[arg-type]


def check_against_composition(x: Tensor, weights: dict[str, Tensor | None], **flags: bool) -> None:
    """x is a float32 leaf, or a view whose base is not asked for gradients."""
    inputs = {"x": x.detach(), **weights}
    exact, leaf = leaves(inputs, torch.float64), leaves(inputs, torch.float32)
    leaf["x"] = x.detach().requires_grad_()  # keeps the strides
    expected, expected_state = run(exact["x"], {k: exact[k] for k in weights}, **flags)  # type: ignore[arg-type]
    actual, state = run(leaf["x"], {k: leaf[k] for k in weights}, **flags)  # type: ignore[arg-type]
    assert_close(actual, expected, FORWARD, "y")
    assert_close(state.conv, expected_state.conv, FORWARD, "state of the convolution")
    assert_close(state.scan, expected_state.scan, FORWARD, "state of the scan")
    assert not state.conv.requires_grad and not state.scan.requires_grad
    cotangent = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1))
    assert_same_gradients(gradients([actual], leaf, [cotangent]), gradients([expected], exact, [cotangent]))
    with torch.no_grad():
        assert torch.equal(run(leaf["x"], {k: leaf[k] for k in weights}, **flags)[0], actual)  # type: ignore[arg-type]


def normal_input(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@needs_kernels
@isa
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    outer=st.integers(0, 2),
    length=st.one_of(st.sampled_from([0, 1, 31, 32, 33, 65]), st.integers(0, 10)),
    between=st.integers(1, 3),
    d=st.integers(1, 37),
    inner=st.integers(1, 40),
    n=st.integers(1, 18),
    rank=st.integers(1, 5),
    taps=st.integers(1, 5),
    norm=st.booleans(),
    residual=st.booleans(),
    reverse=st.booleans(),
    strided=st.booleans(),
)
def test_any_size(
    isa: str,
    outer: int,
    length: int,
    between: int,
    d: int,
    inner: int,
    n: int,
    rank: int,
    taps: int,
    norm: bool,
    residual: bool,
    reverse: bool,
    strided: bool,
) -> None:
    x = normal_input(outer, length, between, d)
    if strided:
        x = x.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    with instructions(isa):
        weights = block_weights(d, inner, n, rank, taps, norm)
        check_against_composition(x, weights, residual=residual, reverse=reverse)


@needs_kernels
@isa
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    outer=st.integers(1, 2),
    length=st.sampled_from([1, 31, 32, 33, 65]),
    between=st.integers(1, 3),
    d=st.integers(1, 37),
    inner=st.integers(1, 40),
    n=st.sampled_from([1, 4, 16, 17]),
    norm=st.booleans(),
)
def test_a_pair_joined_inside_the_kernel(
    isa: str, outer: int, length: int, between: int, d: int, inner: int, n: int, norm: bool
) -> None:
    x = normal_input(outer, length, between, d)
    sizes = d, inner, n, 2, 4, norm
    first, second = (
        block_weights(*sizes),
        {k: None if v is None else v.flip(0) for k, v in block_weights(*sizes).items()},
    )
    weight, bias = normal_input(d, 2 * d) * d**-0.5, normal_input(d)

    def joined(kind: torch.dtype) -> Tensor:
        pair = [BlockWeights(**{k: None if v is None else v.to(kind) for k, v in w.items()}) for w in (first, second)]  # type: ignore[arg-type]
        return fused_pair(x.to(kind), pair[0], pair[1], weight.to(kind), bias.to(kind))

    with instructions(isa):
        y = joined(torch.float32)
    assert_close(y, joined(torch.float64), FORWARD)
    weight.requires_grad_()
    composed = joined(torch.float32)
    assert composed.requires_grad
    assert_close(y, composed, FORWARD)


@needs_kernels
@isa
@pytest.mark.parametrize("n", [1, 16, 17])
def test_odd_sizes(isa: str, n: int) -> None:
    with instructions(isa):
        check_against_composition(normal_input(1, 63, 1, 125), block_weights(125, 500, n, 8, 4), reverse=n == 16)


@needs_kernels
@isa
@settings(max_examples=10, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 40), max_size=3), taps=st.integers(1, 5), d=st.integers(1, 20))
def test_a_split_sequence_equals_the_whole(isa: str, cuts: list[int], taps: int, d: int) -> None:
    x, weights = normal_input(2, 40, 2, d), block_weights(d, 19, 5, 2, taps)
    edges = [0, *sorted(cuts), 40]
    pieces, state = [], None
    with torch.no_grad(), instructions(isa):
        whole, end = run(x, weights)
        for a, b in zip(edges, edges[1:], strict=False):
            piece, state = run(x[:, a:b], weights, state)
            pieces.append(piece)
    assert state is not None
    assert_close(torch.cat(pieces, 1), whole, 2e-6)
    assert_close(state.conv, end.conv, 2e-6)
    assert_close(state.scan, end.scan, 2e-6)


@needs_kernels
def test_a_given_state_is_differentiable_through_the_composition() -> None:
    """With a state and gradients the block is composed; truncated back-propagation over blocks then works."""
    x, weights = normal_input(1, 12, 1, 6), leaves(block_weights(6, 9, 3, 1, 4), torch.float32)
    _, state = run(x[:, :7], weights)
    first = run(x[:, 7:], weights, state)[0]
    first.sum().backward()  # the graph of the first part is not needed, nor touched
    exact = leaves({k: v for k, v in weights.items()}, torch.float64)
    run(x[:, 7:].double(), exact, MambaState(*(t.double() for t in state)))[0].sum().backward()
    for name, weight in weights.items():
        assert_close(weight.grad, exact[name].grad, 3e-5, name)  # type: ignore[arg-type, union-attr]


@needs_kernels
@isa
@pytest.mark.parametrize("d", [16, 19])  # with and without padding in the vectors
@pytest.mark.parametrize("norm", [False, True])
def test_nan_stays_in_its_sequence(isa: str, d: int, norm: bool) -> None:
    weights = block_weights(d, 21, 5, 2, 4, norm)
    clean = normal_input(2, 40, 2, d)
    x = clean.clone()
    x[0, 33, 1, 2] = torch.nan
    with instructions(isa):
        tensors = [t.clone().requires_grad_() for t in (x, clean)]
        spoilt, wanted = (run(t, weights)[0] for t in tensors)
        spoilt.sum().backward()
        wanted.sum().backward()
    bad = torch.zeros(2, 40, 2, dtype=torch.bool)
    bad[0, 33:, 1] = True
    assert torch.equal(spoilt.isnan().any(-1), bad) and torch.equal(spoilt[~bad], wanted[~bad])
    gradient, expected = tensors[0].grad, tensors[1].grad
    assert gradient is not None and expected is not None
    others = torch.ones(2, 2, dtype=torch.bool)
    others[0, 1] = False
    assert torch.equal(gradient.transpose(1, 2)[others], expected.transpose(1, 2)[others])


@needs_kernels
def test_nan_spreads_as_in_the_composition() -> None:
    weights = block_weights(19, 21, 5, 2, 4)
    x = normal_input(2, 40, 1, 19)
    x[0, 20, 0, 3] = torch.nan
    fused = run(x, weights)[0]
    with using("reference"):
        assert same_nan(fused, run(x, weights)[0])


@needs_kernels
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 1e30])
def test_huge_values_do_not_reach_other_sequences(value: float) -> None:
    weights, x = block_weights(19, 21, 5, 2, 4), normal_input(3, 10, 1, 19)
    wanted = run(x, weights)[0]
    x[1, 4] = value
    assert torch.equal(run(x, weights)[0][[0, 2]], wanted[[0, 2]])


@needs_kernels
def test_thread_counts_agree() -> None:
    inputs = {"x": normal_input(2, 40, 3, 24), **block_weights(24, 48, 16, 2, 4)}
    results = []
    for count in (1, 2):
        with threads(count):
            leaf = leaves(inputs, torch.float32)
            y, _ = run(leaf["x"], {k: v for k, v in leaf.items() if k != "x"})  # type: ignore[arg-type]
            results.append({"y": y, **gradients([y], leaf, [torch.ones_like(y)])})
    for name, value in results[0].items():
        assert_close(results[1][name], value, 1e-5, name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_composed(dtype: torch.dtype) -> None:
    """The kernel reads float32 only."""
    weights = {k: None if v is None else v.to(dtype) for k, v in block_weights(20, 24, 5, 2, 4).items()}
    x = normal_input(2, 9, 1, 20).to(dtype)
    y, _ = run(x, weights)
    exact = {k: None if v is None else v.double() for k, v in weights.items()}
    assert y.dtype == dtype
    assert_close(y, run(x.double(), exact)[0], 20 * torch.finfo(dtype).eps)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_weights_of_another_type_than_x() -> None:
    """What autocast and half-converted models hand over must not be read as float32."""
    weights = block_weights(20, 24, 5, 2, 4)
    x = normal_input(2, 9, 1, 20)
    wanted = run(x, weights)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = run(x.bfloat16(), weights)
    assert_close(y, wanted, 0.05)


@pytest.mark.parametrize(
    ("shape", "state", "message"),
    [
        ((1, 3, 1, 7), None, "x must be"),
        ((1, 3, 8), None, "x must be"),
        ((2, 3, 1, 8), (2, 3, 9, 2, 9, 4), "state.conv must be"),
        ((2, 3, 1, 8), (2, 3, 10, 1, 10, 4), "state.scan must be"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shape: tuple[int, ...], state: tuple[int, ...] | None, message: str
) -> None:
    weights = block_weights(8, 10, 4, 1, 4)
    past = MambaState(torch.zeros(state[:3]), torch.zeros(state[3:])) if state else None
    with pytest.raises(ValueError, match=message):
        run(torch.zeros(shape), weights, past)


def test_a_reversed_block_refuses_a_state() -> None:
    weights = block_weights(8, 10, 4, 1, 4)
    state = MambaState(torch.zeros(2, 3, 10), torch.zeros(2, 10, 4))
    with pytest.raises(ValueError, match="backwards"):
        run(torch.zeros(2, 3, 1, 8), weights, state, reverse=True)


def flat(weights: dict[str, Tensor | None]) -> list[Tensor]:
    """As the operator wants them: A itself, and an empty norm for none."""
    values = dict(weights)
    values["A_log"] = -torch.exp(weights["A_log"])  # type: ignore[arg-type]
    return [torch.empty(0) if v is None else v.detach().requires_grad_(v.requires_grad) for v in values.values()]


@needs_kernels
def test_the_operator_keeps_the_rules_of_torch_library() -> None:
    x = normal_input(2, 5, 2, 6).requires_grad_()
    for norm, reverse in ((True, False), (False, True)):
        weights = flat(leaves(block_weights(6, 7, 3, 2, 4, norm), torch.float32))
        torch.library.opcheck(cpu_layers.mamba_block, (x, weights, None, None, 1e-5, norm, True, reverse, True))
    state = torch.zeros(4, 3, 7), torch.zeros(4, 7, 3)
    weights = [w.detach() for w in weights]
    torch.library.opcheck(cpu_layers.mamba_block, (x.detach(), weights, *state, 1e-5, False, True, False, False))
    torch.library.opcheck(cpu_layers.mamba_block_add, (x.detach() + 1, x.detach(), weights, 1e-5, False, False))


@needs_kernels
def test_compiled_graphs_hold_one_node_each_way() -> None:
    x = normal_input(2, 5, 2, 6).requires_grad_()
    leaf = leaves(block_weights(6, 7, 3, 2, 4), torch.float32)

    def layer(x: Tensor, *weights: Tensor) -> Tensor:
        return mamba_block(x, BlockWeights(*weights))[0]

    forward, backward = captured_graphs(layer, x, *leaf.values())
    assert [target for target in forward if "semamba" in target] == ["semamba.mamba_block.default"]
    assert [target for target in backward if "semamba" in target] == ["semamba.mamba_block_backward.default"]
