"""The C++ selective scan against the reference in float64, and what surrounds it: layouts, bad values, fallbacks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semamba.ops import backend_for, cpu, reference, selective_scan, using
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
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
LAYOUTS = {
    "contiguous": lambda t: t,
    "batch second": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "channels before time": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    # NaN around the slice would show in the result if the kernel read it.
    "slice": lambda t: torch.cat([torch.full_like(t, torch.nan)[..., :1], t, torch.full_like(t, torch.nan)], -1)[
        ..., 1 : 1 + t.shape[-1]
    ],
    "every other step": lambda t: torch.stack([t, torch.full_like(t, torch.nan)], 2).flatten(1, 2)[:, ::2],
}


def scan_inputs(
    batch: int, length: int, inner: int, n: int, optional: tuple[str, ...] = OPTIONAL, seed: int = 0
) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    values = {
        "u": normal(batch, length, inner),
        "delta": 0.5 * normal(batch, length, inner) - 1,
        "A": -torch.exp(normal(inner, n)),
        "B": normal(batch, length, n),
        "C": normal(batch, length, n),
        "D": normal(inner),
        "z": normal(batch, length, inner),
        "delta_bias": 0.3 * normal(inner),
        "initial_state": normal(batch, inner, n),
    }
    return {name: None if name in OPTIONAL and name not in optional else value for name, value in values.items()}


def check_against_reference(values: dict[str, Tensor | None], layout: str = "contiguous", **flags: bool) -> None:
    """Output, final state and every gradient."""
    exact, leaf = leaves(values, torch.float64), leaves(values, torch.float32)
    names = ("u", "delta", "B", "C", "z")
    arranged = {k: LAYOUTS[layout](v) if k in names and v is not None else v for k, v in leaf.items()}
    expected = reference.selective_scan(**exact, **flags)  # type: ignore[arg-type]
    actual = selective_scan(**arranged, **flags)  # type: ignore[arg-type]
    assert actual[0].dtype == actual[1].dtype == torch.float32
    assert_close(actual[0], expected[0], FORWARD, "y")
    assert_close(actual[1], expected[1], FORWARD, "final state")
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(t.shape, generator=generator) for t in actual]
    assert_same_gradients(gradients(actual, leaf, cotangents), gradients(expected, exact, cotangents))
    with torch.no_grad():  # without chunk states to keep
        again = selective_scan(**arranged, **flags)  # type: ignore[arg-type]
    assert torch.equal(again[0], actual[0]) and torch.equal(again[1], actual[1])


@needs_kernels
@isa
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 3),
    length=st.one_of(st.sampled_from([0, 1, 2, 31, 32, 33, 63, 64, 65]), st.integers(0, 20)),
    inner=st.integers(1, 40),
    n=st.integers(1, 20),
    optional=st.sets(st.sampled_from(OPTIONAL)),
    layout=st.sampled_from(list(LAYOUTS)),
    softplus=st.booleans(),
    reverse=st.booleans(),
)
def test_any_input(
    isa: str,
    batch: int,
    length: int,
    inner: int,
    n: int,
    optional: set[str],
    layout: str,
    softplus: bool,
    reverse: bool,
) -> None:
    values = scan_inputs(batch, length, inner, n, tuple(sorted(optional)))
    if not softplus:
        values["delta"] = values["delta"].abs()  # type: ignore[union-attr]
        values["delta_bias"] = None if values["delta_bias"] is None else values["delta_bias"].abs()
    with instructions(isa):
        check_against_reference(values, layout, delta_softplus=softplus, reverse=reverse)


@needs_kernels
@isa
@pytest.mark.parametrize("n", [1, 4, 5, 8, 16, 17])
def test_odd_sizes(isa: str, n: int) -> None:
    with instructions(isa):
        check_against_reference(scan_inputs(1, 63, 500, n, seed=n), delta_softplus=True, reverse=n % 2 == 0)


@needs_kernels
@pytest.mark.parametrize("absent", OPTIONAL)
@pytest.mark.parametrize("reverse", [False, True])
def test_each_optional_tensor_left_out(absent: str, reverse: bool) -> None:
    present = tuple(name for name in OPTIONAL if name != absent)
    check_against_reference(scan_inputs(2, 35, 19, 5, present), delta_softplus=True, reverse=reverse)


@needs_kernels
def test_one_sequence_shared_by_a_batch() -> None:
    """Expanded tensors have a stride of zero."""
    values = scan_inputs(1, 34, 9, 4)
    exact, leaf = leaves(values, torch.float64), leaves(values, torch.float32)
    shared = {k: v.expand(3, *v.shape[1:]) if v is not None and v.dim() == 3 else v for k, v in leaf.items()}
    actual = selective_scan(**shared, delta_softplus=True)  # type: ignore[arg-type]
    expected = reference.selective_scan(**exact, delta_softplus=True)  # type: ignore[arg-type]
    assert_close(actual[0], expected[0].expand(3, -1, -1), FORWARD)
    ones = [torch.ones(()).expand(t.shape) for t in actual]
    thrice = [3 * torch.ones(()).expand(t.shape) for t in expected]
    assert_same_gradients(gradients(actual, leaf, ones), gradients(expected, exact, thrice))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(cut=st.integers(0, 50), backend=st.sampled_from(["cpu", "reference"]))
def test_a_split_sequence_equals_the_whole(cut: int, backend: str) -> None:
    if backend == "cpu" and not cpu.available():
        return
    values = scan_inputs(2, 50, 7, 6)
    initial = values.pop("initial_state")
    along = ("u", "delta", "B", "C", "z")
    parts = [
        {k: v[:, part] if k in along and v is not None else v for k, v in values.items()}
        for part in (slice(0, cut), slice(cut, None))
    ]
    with using(backend):  # type: ignore[arg-type]
        whole, end = selective_scan(**values, delta_softplus=True, initial_state=initial)  # type: ignore[arg-type]
        first, state = selective_scan(**parts[0], delta_softplus=True, initial_state=initial)  # type: ignore[arg-type]
        second, state = selective_scan(**parts[1], delta_softplus=True, initial_state=state)  # type: ignore[arg-type]
    assert_close(torch.cat([first, second], 1), whole, 1e-6)
    assert_close(state, end, 1e-6)


@needs_kernels
def test_thread_counts_agree() -> None:
    values = scan_inputs(5, 40, 33, 16)
    results = []
    for count in (1, 2):
        with threads(count):
            leaf = leaves(values, torch.float32)
            outputs = selective_scan(**leaf, delta_softplus=True)  # type: ignore[arg-type]
            ones = [torch.ones_like(t) for t in outputs]
            results.append({"y": outputs[0], "state": outputs[1], **gradients(outputs, leaf, ones)})
    for name, value in results[0].items():
        assert_close(results[1][name], value, 1e-5, name)


@needs_kernels
@isa
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z", "initial_state", "A", "delta_bias"])
@pytest.mark.parametrize("reverse", [False, True])
def test_nan_spreads_as_in_the_reference(isa: str, name: str, reverse: bool) -> None:
    values = scan_inputs(3, 40, 19, 5)
    spoilt = values[name].clone()  # type: ignore[union-attr]
    spoilt[(1, 33, 2)[: spoilt.dim()] if spoilt.dim() == 3 and name != "initial_state" else (1,) * spoilt.dim()] = (
        torch.nan
    )
    clean, values = values, {**values, name: spoilt}
    flags = {"delta_softplus": True, "reverse": reverse}
    exact, leaf = leaves(values, torch.float64), leaves(values, torch.float32)
    expected = reference.selective_scan(**exact, **flags)  # type: ignore[arg-type]
    with instructions(isa):
        actual = selective_scan(**leaf, **flags)  # type: ignore[arg-type]
        ones = [torch.ones_like(t) for t in actual]
        found = gradients(actual, leaf, ones)
        if spoilt.dim() == 3:  # the other sequences, the one after it in the same thread too
            others = selective_scan(**clean, **flags)[0][[0, 2]]  # type: ignore[arg-type]
            assert torch.equal(actual[0][[0, 2]], others)
    assert actual[0].isnan().any()
    assert same_nan(actual[0], expected[0]) and same_nan(actual[1], expected[1])
    for key, gradient in gradients(expected, exact, ones).items():
        assert same_nan(found[key], gradient), f"gradient of {key}"


@needs_kernels
@isa
@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7FFFFFFF])
def test_every_kind_of_nan_in_delta(isa: str, bits: int) -> None:
    delta = torch.zeros(1, 3, 4)
    delta.view(torch.int32)[0, 1, 2] = bits - (1 << 32) if bits >> 31 else bits
    u, b = torch.ones(1, 3, 4), torch.ones(1, 3, 2)
    for softplus in (False, True):
        with instructions(isa):
            y, state = selective_scan(u, delta, -torch.ones(4, 2), b, b, delta_softplus=softplus)
        assert y[0, :, 2].isnan().tolist() == [False, True, True]
        assert y.isnan().sum() == 2 and state[0, 2].isnan().all()


@needs_kernels
@isa
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z", "initial_state"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinity_spreads_as_in_the_reference(isa: str, name: str, value: float) -> None:
    values = scan_inputs(2, 10, 19, 5)
    spoilt = values[name].clone()  # type: ignore[union-attr]
    spoilt[1, 4, 1] = value
    values = {**values, name: spoilt}
    double = {k: None if v is None else v.double() for k, v in values.items()}
    expected = reference.selective_scan(**double, delta_softplus=True)  # type: ignore[arg-type]
    with instructions(isa):
        actual = selective_scan(**values, delta_softplus=True)  # type: ignore[arg-type]
    for found, wanted in zip(actual, expected, strict=True):
        assert same_nan(found, wanted)
        assert torch.equal(found.isposinf(), wanted.isposinf()) and torch.equal(found.isneginf(), wanted.isneginf())
        assert_close(found.nan_to_num(0, 0, 0), wanted.nan_to_num(0, 0, 0), FORWARD)


@needs_kernels
@isa
def test_elementary_functions_over_their_whole_range(isa: str) -> None:
    """softplus, silu and exp, seen through scans of one step with everything else one or zero."""
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.linspace(-1, 1, 501), torch.logspace(-12, -1, 111)])
    count, exact = x.numel(), x.double()
    zero, one, unit = torch.zeros(1, 1, count), torch.ones(1, 1, count), torch.ones(1, 1, 1)
    decay, row = -torch.ones(count, 1), x.view(1, 1, count)
    with instructions(isa):
        softplus = selective_scan(one, row, decay, unit, unit, delta_softplus=True)[0].view(-1)
        silu = selective_scan(one, zero, decay, unit, unit, torch.ones(count), z=row)[0].view(-1)
        raised = selective_scan(zero, one, -x.abs()[:, None], unit, unit, initial_state=one.view(1, count, 1))[1].view(
            -1
        )
    # Exponents lose |x| 2^-24 in float32, and results below 2^-126 are not told apart from it.
    tiny = 1.2e-38
    allowed = 4e-7 + 1e-7 * exact.abs()
    wanted = torch.log1p(torch.exp(-exact.abs())) + exact.clamp(min=0)
    assert bool(((softplus - wanted).abs() <= allowed * wanted + tiny).all())
    wanted = exact * torch.sigmoid(exact)
    assert bool(((silu - wanted).abs() <= allowed * wanted.abs() + 100 * tiny).all())
    wanted = torch.exp(-exact.abs())
    assert bool(((raised - wanted).abs() <= allowed * wanted + tiny).all())


@needs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-10)])
def test_low_precision_input(dtype: torch.dtype, tolerance: float) -> None:
    """The state is float32 inside: only what goes in and out is rounded."""
    values = {k: None if v is None else v.to(dtype) for k, v in scan_inputs(2, 37, 21, 16).items()}
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


def test_float64_takes_the_reference() -> None:
    values = {k: None if v is None else v.double() for k, v in scan_inputs(1, 5, 3, 2).items()}
    y, state = selective_scan(**values)  # type: ignore[arg-type]
    assert y.dtype == state.dtype == torch.float64


@pytest.mark.parametrize("name", ["delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_a_shape_that_does_not_fit_is_named(name: str) -> None:
    values = scan_inputs(2, 5, 3, 4)
    values[name] = torch.zeros(*values[name].shape[:-1], 9)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=f"^{'B' if name == 'A' else name} must be"):  # A's second size is taken as N
        selective_scan(**values)  # type: ignore[arg-type]


@needs_kernels
def test_there_is_no_second_derivative() -> None:
    """Refused, not silently wrong."""
    leaf = leaves(scan_inputs(1, 4, 3, 2), torch.float32)
    y = selective_scan(**leaf)[0]  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(y.square().sum(), [leaf["u"]], create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@needs_kernels
def test_the_operator_keeps_the_rules_of_torch_library() -> None:
    full = leaves(scan_inputs(2, 34, 5, 3), torch.float32)
    bare = leaves(scan_inputs(1, 3, 4, 2, ()), torch.float32)
    for leaf, reverse in ((full, False), (bare, True)):
        order = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
        arguments = (*(leaf[k] for k in order), True, leaf["initial_state"], reverse, True)
        torch.library.opcheck(cpu.scan, arguments)


@needs_kernels
def test_compiled_graphs_hold_one_node_each_way() -> None:
    leaf = leaves(scan_inputs(2, 9, 5, 3, ("D", "z")), torch.float32)

    def layer(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor) -> Tensor:
        return selective_scan(u, delta, A, B, C, D, z, delta_softplus=True)[0]

    arguments = [leaf[k] for k in ("u", "delta", "A", "B", "C", "D", "z")]
    forward, backward = captured_graphs(layer, *arguments)
    assert [target for target in forward if "semamba" in target] == ["semamba.scan.default"]
    assert [target for target in backward if "semamba" in target] == ["semamba.scan_backward.default"]
    assert not any("exp" in target for target in forward)  # the loop of the reference is not there


@needs_kernels
def test_an_unknown_instruction_set_is_refused() -> None:
    before = cpu.kernel_name()
    with pytest.raises(ValueError, match="'sse1'"):
        cpu.use("sse1")
    assert cpu.kernel_name() == before


@pytest.fixture
def library_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Kernels are looked for at this path, where there is nothing yet."""
    path = tmp_path / "kernels.so"
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "LIBRARY", path)
        cpu._library.cache_clear()
        yield path
    cpu._library.cache_clear()


def check_that_the_reference_runs() -> None:
    assert not cpu.available()
    values = scan_inputs(2, 5, 3, 4)
    assert backend_for(values["u"]) == "reference"  # type: ignore[arg-type]
    actual, expected = selective_scan(**values), reference.selective_scan(**values)  # type: ignore[arg-type]
    assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])
    with pytest.raises(RuntimeError, match="C\\+\\+ kernels"):
        cpu.kernel_name()


def test_without_a_library(library_at: Path) -> None:
    check_that_the_reference_runs()
    assert "not built" in cpu.why_unavailable()


def test_with_a_broken_library(library_at: Path) -> None:
    library_at.write_bytes(b"not a library")
    check_that_the_reference_runs()
    assert "do not load" in cpu.why_unavailable()


def test_after_the_fallback_tests_the_kernels_are_back() -> None:
    assert cpu.available() == cpu.LIBRARY.exists()


@needs_kernels
def test_the_environment_names_the_instruction_set() -> None:
    def kernel(name: str) -> subprocess.CompletedProcess[str]:
        script = "from semamba.ops import cpu; print(cpu.kernel_name())"
        environment = {**os.environ, cpu.ISA_VARIABLE: name}
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)

    assert kernel("portable").stdout.strip() == "portable"
    wrong = kernel("mmx")
    assert wrong.returncode == 1 and "SEMAMBA_ISA=mmx" in wrong.stderr
