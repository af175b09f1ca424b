"""What test_triton.py runs in the interpreter: the GPU kernels against float64, outputs, states and every gradient."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from semamba.models.mixers import BidirectionalMamba, MixerConfig
from semamba.ops import BlockWeights, MambaState, block, gpu, mamba_block, reference, selective_scan, using
from tests.ops.cases import (
    FORWARD,
    GRADIENT,
    assert_close,
    assert_same_gradients,
    captured_graphs,
    gradients,
    leaves,
)
from tests.ops.interpreter import prepare
from tests.ops.test_block import block_weights, normal_input, run
from tests.ops.test_scan import OPTIONAL, check_against_reference, scan_inputs

prepare()


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    torch.set_num_threads(1)
    with using("triton"):
        yield


@pytest.mark.parametrize(
    ("batch", "length", "inner", "n", "layout", "reverse"),
    [
        (1, 63, 21, 16, "contiguous", False),  # seven chunks and a part
        (1, 63, 5, 5, "batch second", True),
        (1, 17, 37, 5, "every other step", True),
        (1, 5, 500, 3, "slice", False),
        (2, 9, 7, 1, "channels before time", False),
        (2, 1, 3, 17, "contiguous", True),
        (2, 0, 3, 4, "contiguous", False),
        (0, 3, 3, 4, "contiguous", False),
    ],
)
def test_scan(batch: int, length: int, inner: int, n: int, layout: str, reverse: bool) -> None:
    check_against_reference(scan_inputs(batch, length, inner, n), layout, delta_softplus=True, reverse=reverse)


@pytest.mark.parametrize("absent", OPTIONAL)
def test_scan_without(absent: str) -> None:
    values = scan_inputs(1, 9, 5, 4, tuple(name for name in OPTIONAL if name != absent))
    check_against_reference(values, delta_softplus=True)


def test_scan_bare() -> None:
    values = scan_inputs(1, 9, 5, 4, ())
    values["delta"] = values["delta"].abs()  # type: ignore[union-attr]
    check_against_reference(values, reverse=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_scan_in_low_precision(dtype: torch.dtype, tolerance: float) -> None:
    """The state is float32 inside: only what goes in and out is rounded, bfloat16 by the interpreter towards zero."""
    values = {k: None if v is None else v.to(dtype) for k, v in scan_inputs(1, 11, 9, 16).items()}
    exact, leaf = leaves(values, torch.float64), leaves(values, dtype)
    actual = selective_scan(**leaf, delta_softplus=True)  # type: ignore[arg-type]
    expected = reference.selective_scan(**exact, delta_softplus=True)  # type: ignore[arg-type]
    assert actual[0].dtype == dtype and actual[1].dtype == torch.float32
    assert_close(actual[0], expected[0], tolerance, "y")
    assert_close(actual[1], expected[1], FORWARD, "final state")
    ones = [torch.ones_like(t) for t in actual]
    found = gradients(actual, leaf, ones)
    assert {g.dtype for g in found.values()} == {dtype}
    assert_same_gradients(found, gradients(expected, exact, ones), tolerance)


def test_nan_stays_in_its_sequence_and_shows() -> None:
    values = scan_inputs(3, 10, 5, 4)
    clean = selective_scan(**values, delta_softplus=True)[0]  # type: ignore[arg-type]
    values["delta"][1, 4, 2] = torch.nan  # type: ignore[index]
    spoilt = selective_scan(**values, delta_softplus=True)[0]  # type: ignore[arg-type]
    assert torch.equal(spoilt[[0, 2]], clean[[0, 2]]) and spoilt[1, 4:, 2].isnan().all()


def test_equal_input_gives_equal_bits() -> None:
    leaf = leaves(scan_inputs(2, 3, 40, 4), torch.float32)
    runs = []
    for _ in range(2):
        outputs = selective_scan(**leaf, delta_softplus=True)  # type: ignore[arg-type]
        runs.append([*outputs, *gradients(outputs, leaf, [torch.ones_like(t) for t in outputs]).values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("reverse", [False, True])
def test_both_directions_in_one_launch(reverse: bool) -> None:
    """(2, P, L, Q, ...) whose second half reads against the first, with strides on every axis."""
    pairs = [scan_inputs(4, 9, 5, 4, ("D", "z", "delta_bias"), seed) for seed in (0, 1)]
    exact = [leaves(pair, torch.float64) for pair in pairs]
    along = ("u", "delta", "B", "C", "z")
    order = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    both = {k: torch.stack([pair[k] for pair in pairs]) for k in order}  # type: ignore[misc]
    leaf = leaves(both, torch.float32)
    arranged = [v.unflatten(1, (2, 2)).transpose(2, 3) if k in along else v for k, v in leaf.items()]  # type: ignore[union-attr]
    y, final, _ = gpu.scan(*arranged, True, None, reverse, True)
    outputs = y.transpose(2, 3).flatten(1, 2), final.unflatten(0, (2, 4))
    wanted = [
        reference.selective_scan(**pair, delta_softplus=True, reverse=backwards)  # type: ignore[arg-type]
        for pair, backwards in zip(exact, (reverse, not reverse), strict=True)
    ]
    expected = [torch.stack(t) for t in zip(*wanted, strict=True)]
    cotangents = [torch.randn(t.shape, generator=torch.Generator().manual_seed(3)) for t in outputs]
    for actual, value in zip(outputs, expected, strict=True):
        assert_close(actual, value, FORWARD)
    found = gradients(outputs, leaf, cotangents)
    for g in (0, 1):
        wanted_gradients = gradients(wanted[g], exact[g], [t[g] for t in cotangents])
        assert_same_gradients({k: v[g] for k, v in found.items()}, {k: wanted_gradients[k] for k in order})


@pytest.mark.parametrize(
    ("length", "taps", "state", "reverse"),
    [(63, 4, True, False), (33, 4, False, True), (2, 4, True, False), (31, 3, False, False), (5, 1, True, False)],
)
def test_short_convolution(length: int, taps: int, state: bool, reverse: bool) -> None:
    """Against the definition in float64; a state goes with reading forwards."""
    weights = block_weights(3, 37, 2, 1, taps)
    values = {"x": normal_input(2, length, 3, 37), "weight": weights["conv_weight"], "bias": weights["conv_bias"]}
    values["past"] = normal_input(6, taps - 1, 37) if state else None
    exact, leaf = leaves(values, torch.float64), leaves(values, torch.float32)
    y = gpu.conv(leaf["x"][None], leaf["weight"][:, 0][None], leaf["bias"][None], leaf["past"], reverse)[0]
    flat = exact["x"].transpose(1, 2).flatten(0, 1)  # type: ignore[union-attr]
    layer = BlockWeights(**{**weights, "conv_weight": exact["weight"], "conv_bias": exact["bias"]})  # type: ignore[arg-type]
    past = MambaState(exact["past"], torch.empty(0)) if state else None  # type: ignore[arg-type]
    expected, _ = block._short_convolution(flat, layer, past, reverse)
    expected = expected.unflatten(0, (2, 3)).transpose(1, 2)
    assert_close(y, expected, FORWARD)
    cotangent = [torch.randn(y.shape, generator=torch.Generator().manual_seed(3))]
    assert_same_gradients(gradients([y], leaf, cotangent), gradients([expected], exact, cotangent))


@pytest.mark.parametrize("reverse", [False, True])
def test_block(reverse: bool) -> None:
    """In place on strided features, against its composition in float64."""
    inputs = {"x": normal_input(1, 9, 2, 6), **block_weights(6, 7, 3, 2, 4, norm=not reverse)}
    exact, leaf = leaves(inputs, torch.float64), leaves(inputs, torch.float32)
    with using("reference"):
        expected, past = run(exact["x"], {k: v for k, v in exact.items() if k != "x"}, reverse=reverse)  # type: ignore[arg-type]
    actual, state = run(leaf["x"], {k: v for k, v in leaf.items() if k != "x"}, reverse=reverse)  # type: ignore[arg-type]
    for found, wanted in zip((actual, *state), (expected, *past), strict=True):
        assert_close(found, wanted, FORWARD)
    cotangent = [normal_input(*actual.shape)]
    assert_same_gradients(gradients([actual], leaf, cotangent), gradients([expected], exact, cotangent))


@torch.no_grad()
def test_a_split_block_equals_the_whole() -> None:
    x, weights = normal_input(2, 12, 2, 6), block_weights(6, 7, 3, 2, 4)
    whole, end = run(x, weights)
    pieces, state = [], None
    for piece in x.split([1, 2, 0, 9], dim=1):
        y, state = run(piece, weights, state)
        pieces.append(y)
    assert state is not None
    for found, wanted in zip((torch.cat(pieces, 1), *state), (whole, *end), strict=True):
        assert_close(found, wanted, 2e-6)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_bidirectional_layer_runs_as_one(axis: int) -> None:
    torch.manual_seed(0)
    layer = BidirectionalMamba(MixerConfig(expand=2, d_state=4), 6)
    x = normal_input(1, 5, 4, 6)
    y = layer.along(x, axis)
    found = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
    with using("reference"):
        exact = layer.double().along(x.double(), axis)
        expected = torch.autograd.grad(exact.square().sum(), list(layer.parameters()))
    assert_close(y, exact, FORWARD)
    for (name, _), gradient, wanted in zip(layer.named_parameters(), found, expected, strict=True):
        assert_close(gradient, wanted, 2 * GRADIENT, name)


def test_the_operators_keep_the_rules_of_torch_library() -> None:
    full, bare = (leaves(scan_inputs(1, 3, 5, 3, names), torch.float32) for names in (OPTIONAL, ()))
    for leaf, reverse in ((full, False), (bare, True)):
        views = {k: None if v is None else v[None] for k, v in leaf.items()}
        views |= {k: v[:, :, :, None] for k, v in views.items() if k in ("u", "delta", "B", "C", "z") and v is not None}
        tensors = [views[k] for k in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
        torch.library.opcheck(gpu.scan, (*tensors, True, leaf["initial_state"], reverse, True))
    x, weight, bias = normal_input(1, 1, 5, 2, 4), normal_input(1, 4, 3), normal_input(1, 4)
    for past in (None, normal_input(2, 2, 4).requires_grad_()):
        tensors = [t.clone().requires_grad_() for t in (x, weight, bias)]
        torch.library.opcheck(gpu.conv, (*tensors, past, False))


def test_compiled_graphs_hold_one_node_each_way() -> None:
    x = normal_input(1, 5, 2, 6).requires_grad_()
    leaf = leaves(block_weights(6, 7, 3, 2, 4), torch.float32)

    def layer(x: Tensor, *weights: Tensor) -> Tensor:
        return mamba_block(x, BlockWeights(*weights))[0]

    forward, backward = captured_graphs(layer, x, *leaf.values())
    ours = [[target for target in graph if "semamba" in target] for graph in (forward, backward)]
    assert ours[0] == ["semamba.gpu_conv.default", "semamba.gpu_scan.default"]
    assert ours[1] == ["semamba.gpu_scan_backward.default", "semamba.gpu_conv_backward.default"]
