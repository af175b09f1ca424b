"""The fused layers along frequency against their composition in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semamba.ops import cpu, cpu_layers, frequency_attention, frequency_conv
from tests.ops.cases import (
    FORWARD,
    assert_close,
    assert_same_gradients,
    available_instructions,
    captured_graphs,
    gradients,
    instructions,
    leaves,
    threads,
)

needs_kernels = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "kernels are there")
isa = pytest.mark.parametrize("isa", available_instructions())


def layer_inputs(rows: int, bands: int, channels: int, heads: int) -> dict[str, Tensor | None]:
    """Heads 0: the convolution's weights, otherwise the attention's."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    inputs: dict[str, Tensor | None] = {
        "x": normal(rows, 1, bands, channels),
        "norm": 1 + normal(channels, scale=0.3),
        "weight": normal(channels if heads == 0 else 3 * channels, channels * 3 if heads == 0 else channels)
        * channels**-0.5,
        "bias": normal(channels if heads == 0 else 3 * channels, scale=0.3),
    }
    if heads:
        inputs |= {"out_weight": normal(channels, channels, scale=channels**-0.5), "out_bias": normal(channels)}
    return inputs


def run(inputs: dict[str, Tensor | None], heads: int) -> Tensor:
    x, *weights = inputs.values()
    if heads:
        return frequency_attention(x, *weights, heads=heads)  # type: ignore[arg-type]
    return frequency_conv(x, *weights)  # type: ignore[arg-type]


@needs_kernels
@isa
@settings(max_examples=20, deadline=None, derandomize=True)
@given(rows=st.integers(0, 3), bands=st.integers(1, 35), width=st.integers(1, 20), heads=st.integers(0, 4))
def test_any_size(isa: str, rows: int, bands: int, width: int, heads: int) -> None:
    inputs = layer_inputs(rows, bands, width * max(heads, 1), heads)
    exact, leaf = leaves(inputs, torch.float64), leaves(inputs, torch.float32)
    expected = run(exact, heads)
    with instructions(isa):
        actual = run(leaf, heads)
        assert_close(actual, expected, FORWARD)
        cotangent = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1))
        found = gradients([actual], leaf, [cotangent])
    assert_same_gradients(found, gradients([expected], exact, [cotangent]))


@needs_kernels
@isa
@pytest.mark.parametrize("heads", [0, 2])
def test_nan_stays_in_its_row(isa: str, heads: int) -> None:
    inputs = layer_inputs(3, 9, 18, heads)
    clean, spoilt = leaves(inputs, torch.float32), leaves(inputs, torch.float32)
    with torch.no_grad():
        spoilt["x"][1, 0, 4, 5] = torch.nan  # type: ignore[index]
    with instructions(isa):
        wanted, actual = run(clean, heads), run(spoilt, heads)
        wanted.sum().backward()
        actual.sum().backward()
    assert actual[1].isnan().any() and torch.equal(actual[[0, 2]], wanted[[0, 2]])
    if not heads:  # reaches one band to either side
        assert actual[1, 0].isnan().any(-1).nonzero().flatten().tolist() == [3, 4, 5]
    found, expected = spoilt["x"].grad, clean["x"].grad  # type: ignore[union-attr]
    assert torch.equal(found[[0, 2]], expected[[0, 2]])  # type: ignore[index]


@needs_kernels
@pytest.mark.parametrize("heads", [0, 3])
def test_thread_counts_agree(heads: int) -> None:
    inputs = layer_inputs(7, 11, 12, heads)
    results = []
    for count in (1, 2):
        with threads(count):
            leaf = leaves(inputs, torch.float32)
            y = run(leaf, heads)
            results.append({"y": y, **gradients([y], leaf, [torch.ones_like(y)])})
    for name, value in results[0].items():
        assert_close(results[1][name], value, 1e-5, name)


@pytest.mark.parametrize("heads", [0, 2])
def test_large_scores_and_other_types(heads: int) -> None:
    inputs = layer_inputs(2, 9, 16, heads)
    inputs["weight"] = 30 * inputs["weight"]  # type: ignore[operator]
    expected = run({k: v.double() for k, v in inputs.items()}, heads)  # type: ignore[union-attr]
    assert_close(run(inputs, heads), expected, 1e-4)
    assert_close(run({k: v.bfloat16() for k, v in inputs.items()}, heads), expected, 0.2)  # type: ignore[union-attr]


@needs_kernels
def test_the_operator_keeps_the_rules_of_torch_library() -> None:
    x, *weights = leaves(layer_inputs(2, 5, 6, 2), torch.float32).values()
    torch.library.opcheck(cpu_layers.frequency_layer, (x[:, 0], weights, 2, 1e-5))  # type: ignore[index]


@needs_kernels
@pytest.mark.parametrize("heads", [0, 2])
def test_compiled_graphs_hold_one_node_each_way(heads: int) -> None:
    leaf = leaves(layer_inputs(2, 5, 6, heads), torch.float32)
    forward, backward = captured_graphs(
        lambda *values: run(dict(zip(leaf, values, strict=True)), heads), *leaf.values()
    )
    assert [target for target in forward if "semamba" in target] == ["semamba.frequency_layer.default"]
    assert [target for target in backward if "semamba" in target] == ["semamba.frequency_layer_backward.default"]
