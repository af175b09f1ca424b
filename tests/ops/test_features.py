"""InstanceNorm with PReLU and the layers of a dense block against their composition in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semamba.ops import cpu, cpu_features, dense_layer, instance_norm, line_layer, using
from semamba.ops.features import can_join
from semamba.ops.memory import empty, reused_buffers
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


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def norm_inputs(b: int, t: int, f: int, c: int, slope: bool = True) -> dict[str, Tensor | None]:
    return {
        "x": normal(b, t, f, c) * 2 + 1,
        "weight": 1 + normal(c, seed=1) / 3,
        "bias": normal(c, seed=2),
        "slope": normal(c, seed=3) / 2 if slope else None,
    }


@needs_kernels
@isa
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    b=st.integers(1, 3),
    t=st.integers(1, 20),
    f=st.sampled_from([1, 3, 17, 52, 100]),
    c=st.integers(1, 37),
    slope=st.booleans(),
)
def test_instance_norm_of_any_size(isa: str, b: int, t: int, f: int, c: int, slope: bool) -> None:
    inputs = norm_inputs(b, t, f, c, slope)
    exact, leaf = leaves(inputs, torch.float64), leaves(inputs, torch.float32)
    with instructions(isa):
        y, expected = instance_norm(**leaf), instance_norm(**exact)  # type: ignore[arg-type]
        if t * f < 4:  # the deviation of a few positions may be nearly zero, which magnifies any rounding
            return
        assert_close(y, expected, FORWARD)
        cotangent = normal(*y.shape, seed=4)
        assert_same_gradients(gradients([y], leaf, [cotangent]), gradients([expected], exact, [cotangent]), 1e-4)


@needs_kernels
@isa
def test_a_large_mean_costs_no_digits(isa: str) -> None:
    inputs = {**norm_inputs(1, 40, 50, 19), "x": normal(1, 40, 50, 19) + 1000}
    exact = {k: v.double() for k, v in inputs.items()}  # type: ignore[union-attr]
    with instructions(isa):
        assert_close(instance_norm(**inputs), instance_norm(**exact), 3e-5)  # type: ignore[arg-type]


@needs_kernels
@isa
@pytest.mark.parametrize("value", [0.0, 1e-42, 0.1, 1234.5])
def test_a_constant_input_gives_the_bias(isa: str, value: float) -> None:
    inputs = {**norm_inputs(2, 30, 20, 5, slope=False), "x": torch.full((2, 30, 20, 5), value, requires_grad=True)}
    with instructions(isa):
        y = instance_norm(**inputs)  # type: ignore[arg-type]
        y.square().sum().backward()
    assert torch.equal(y, inputs["bias"].expand_as(y))  # type: ignore[union-attr]
    assert inputs["x"].grad.isfinite().all()  # type: ignore[union-attr]


@needs_kernels
def test_threads_give_the_same_bits() -> None:
    inputs = norm_inputs(1, 40, 50, 19)
    results = []
    for count in (1, 2):
        with threads(count):
            leaf = leaves(inputs, torch.float32)
            y = instance_norm(**leaf)  # type: ignore[arg-type]
            results.append([y, *gradients([y], leaf, [torch.ones_like(y)]).values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@needs_kernels
def test_items_of_a_batch_do_not_meet() -> None:
    inputs = norm_inputs(3, 9, 30, 7)
    spoilt = {**inputs, "x": inputs["x"].clone()}  # type: ignore[union-attr]
    spoilt["x"][1, 2, 3, 4] = torch.nan
    y, wanted = instance_norm(**spoilt), instance_norm(**inputs)  # type: ignore[arg-type]
    bad = torch.zeros(3, 7, dtype=torch.bool)
    bad[1, 4] = True
    assert torch.equal(y.isnan().any(1).any(1), bad)
    assert torch.equal(y.movedim(-1, 1)[~bad], wanted.movedim(-1, 1)[~bad])
    with using("reference"):
        assert same_nan(y, instance_norm(**spoilt))  # type: ignore[arg-type]


@needs_kernels
def test_an_owned_input_is_overwritten_only_without_gradients() -> None:
    inputs = norm_inputs(1, 9, 30, 7)
    wanted = instance_norm(**inputs)  # type: ignore[arg-type]
    x = inputs["x"].clone()  # type: ignore[union-attr]
    y = instance_norm(**{**inputs, "x": x}, owned=True)  # type: ignore[arg-type]
    assert y.data_ptr() == x.data_ptr() and torch.equal(y, wanted)
    leaf = inputs["x"].clone().requires_grad_()  # type: ignore[union-attr]
    y = instance_norm(**{**inputs, "x": leaf}, owned=True)  # type: ignore[arg-type]
    assert torch.equal(leaf, inputs["x"]) and torch.equal(y, wanted)  # type: ignore[arg-type]


@needs_kernels
def test_the_operators_keep_the_rules_of_torch_library() -> None:
    x = normal(2, 9, 5).requires_grad_()
    weight, bias, slope = (normal(5, seed=i).requires_grad_() for i in range(3))
    for last in (slope, None):
        torch.library.opcheck(cpu_features.instance_norm, (x, weight, bias, last, 1e-5))
    plain = [t.detach() for t in (x, weight, bias, slope)]
    torch.library.opcheck(cpu_features.instance_norm_, (*plain, 1e-5))
    groups, weights = dense_inputs(1, 4, 5, 3, 2, 2)
    torch.library.opcheck(cpu_features.dense_layer, (groups, *weights, 2, 1e-5))


@needs_kernels
def test_compiled_graphs_hold_one_node_each_way() -> None:
    leaf = leaves(norm_inputs(1, 4, 6, 5), torch.float32)
    forward, backward = captured_graphs(instance_norm, *leaf.values())
    assert [target for target in forward if "semamba" in target] == ["semamba.instance_norm.default"]
    assert [target for target in backward if "semamba" in target] == ["semamba.instance_norm_backward.default"]


# ------------------------------------------------------------------------------------------------- the dense layer


def dense_inputs(b: int, t: int, f: int, c: int, out: int, groups: int) -> tuple[list[Tensor], list[Tensor]]:
    inputs = [normal(b, t, f, c, seed=10 + i) for i in range(groups)]
    weight = normal(out, groups * c, 3, 3, seed=1) * (9 * groups * c) ** -0.5
    return inputs, [weight, normal(out, seed=2), 1 + normal(out, seed=3) / 3, normal(out, seed=4), normal(out, seed=5)]


def check_dense(b: int, t: int, f: int, c: int, out: int, groups: int, dilation: int) -> None:
    inputs, weights = dense_inputs(b, t, f, c, out, groups)
    exact = [x.double() for x in inputs], [w.double() for w in weights]
    with torch.no_grad():
        assert can_join(inputs, weights)
        y, expected = dense_layer(inputs, *weights, dilation), dense_layer(exact[0], *exact[1], dilation)
    assert_close(y, expected, FORWARD, f"{(b, t, f, c, out, groups, dilation)}")


@needs_kernels
@isa
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    b=st.integers(1, 2),
    t=st.integers(1, 40),
    f=st.sampled_from([2, 3, 4, 5, 11, 52, 53, 57, 105]),
    c=st.integers(1, 20),
    out=st.integers(1, 19),
    groups=st.integers(1, 4),
    dilation=st.sampled_from([1, 2, 3, 8]),
)
def test_dense_layer_of_any_size(
    isa: str, b: int, t: int, f: int, c: int, out: int, groups: int, dilation: int
) -> None:
    if t * f < 16:
        t = 16
    with instructions(isa):
        check_dense(b, t, f, c, out, groups, dilation)


@needs_kernels
@isa
def test_dense_layer_of_the_real_size(isa: str) -> None:
    with instructions(isa):
        check_dense(1, 35, 201, 64, 64, 4, 8)


@needs_kernels
def test_dense_layer_is_the_same_for_threads_and_batches() -> None:
    inputs, weights = dense_inputs(2, 30, 60, 9, 11, 3)
    with torch.no_grad():
        with threads(2):
            y = dense_layer(inputs, *weights, 4)
        with threads(1):
            assert torch.equal(dense_layer(inputs, *weights, 4), y)
            assert torch.equal(dense_layer([x[1:] for x in inputs], *weights, 4), y[1:])


@needs_kernels
@pytest.mark.parametrize("value", [0.0, 1e-42, 3.0])
def test_dense_layer_of_a_constant(value: float) -> None:
    inputs, weights = dense_inputs(1, 20, 60, 9, 11, 2)
    inputs = [torch.full_like(x, value) for x in inputs]
    with torch.no_grad():
        y = dense_layer(inputs, *weights, 2)
        expected = dense_layer([x.double() for x in inputs], *(w.double() for w in weights), 2)
    assert_close(y, expected, FORWARD)


@needs_kernels
def test_dense_layer_with_gradients_is_composed() -> None:
    inputs, weights = dense_inputs(1, 9, 20, 4, 5, 2)
    named = {str(i): t for i, t in enumerate((*inputs, *weights))}
    leaf, exact = leaves(named, torch.float32), leaves(named, torch.float64)
    y, expected = (dense_layer([t["0"], t["1"]], *list(t.values())[2:], dilation=2) for t in (leaf, exact))  # type: ignore
    assert not can_join(inputs, list(leaf.values())) and y.requires_grad  # type: ignore[arg-type]
    cotangent = normal(*y.shape, seed=9)
    actual, wanted = gradients([y], leaf, [cotangent]), gradients([expected], exact, [cotangent])
    # The bias of a convolution before a norm has no gradient but rounding.
    assert float(actual.pop("3").abs().max()) < 1e-3 and float(wanted.pop("3").abs().max()) < 1e-10
    assert_same_gradients(actual, wanted, 1e-4)


# ------------------------------------------------------------------------------------- convolutions along frequency


@needs_kernels
@isa
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    b=st.integers(1, 2),
    t=st.integers(8, 20),
    f=st.sampled_from([3, 4, 9, 53, 100, 201]),
    c=st.integers(1, 20),
    out=st.sampled_from([3, 16, 48, 64]),
    taps=st.integers(1, 3),
    stride=st.integers(1, 2),
    transposed=st.booleans(),
)
def test_line_layer_of_any_size(
    isa: str, b: int, t: int, f: int, c: int, out: int, taps: int, stride: int, transposed: bool
) -> None:
    shape = (c, out, 1, taps) if transposed else (out, c, 1, taps)
    x, weight = normal(b, t, f, c), normal(*shape, seed=1) * (taps * c) ** -0.5
    weights = [weight, normal(out, seed=2), 1 + normal(out, seed=3) / 3, normal(out, seed=4), normal(out, seed=5)]
    with torch.no_grad(), instructions(isa):
        y = line_layer(x, *weights, stride, transposed)
        expected = line_layer(x.double(), *(w.double() for w in weights), stride, transposed)
    assert_close(y, expected, FORWARD)


@needs_kernels
def test_line_layer_is_the_same_for_threads_and_batches() -> None:
    x, weight = normal(2, 30, 41, 16), normal(16, 32, 1, 3, seed=1)
    weights = [weight, *(normal(32, seed=i) for i in range(2, 6))]
    with torch.no_grad():
        with threads(2):
            y = line_layer(x, *weights, 2, True)
        with threads(1):
            assert torch.equal(line_layer(x, *weights, 2, True), y)
            assert torch.equal(line_layer(x[1:], *weights, 2, True), y[1:])
    torch.library.opcheck(cpu_features.line_layer, (x[:, :2], *weights, 2, True, 1e-5))


# ------------------------------------------------------------------------------------------------------------ memory


def test_buffers_are_taken_again_once_nobody_uses_them() -> None:
    shape = (2**10, 2**10)
    with reused_buffers():
        first = empty(*shape)
        where, view = first.data_ptr(), first[3:].t()
        del first
        assert empty(*shape).data_ptr() != where  # the view still uses it
        view.fill_(5.0)
        kept = empty(*shape).fill_(1.0)
        assert (view == 5).all()
        del view
        assert empty(*shape).data_ptr() == where
        with reused_buffers():  # an inner pass shares with the outer one
            assert empty(*shape).data_ptr() == where
    assert (kept == 1).all() and kept.shape == shape


def test_without_a_pass_every_buffer_is_new() -> None:
    first = empty(2**10, 2**10)
    assert empty(2**10, 2**10).data_ptr() != first.data_ptr()
