"""The loop that exporters write down computes what the reference does."""

from __future__ import annotations

import pytest
import torch

from semamba.ops import selective_scan, using


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_equals_the_reference(length: int, reverse: bool) -> None:
    torch.manual_seed(0)
    u, delta, z = (torch.randn(3, length, 6) for _ in range(3))
    b, c = (torch.randn(3, length, 5) for _ in range(2))
    rates = -torch.rand(6, 5)
    options = {
        "D": torch.randn(6),
        "z": z,
        "delta_bias": torch.randn(6),
        "delta_softplus": True,
        "initial_state": torch.randn(3, 6, 5),
        "reverse": reverse,
    }
    results = {}
    for backend in ("reference", "graph"):
        with using(backend), torch.no_grad():  # type: ignore[arg-type]
            results[backend] = selective_scan(u, delta, rates, b, c, **options)  # type: ignore[arg-type]
    for one, other in zip(results["graph"], results["reference"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
