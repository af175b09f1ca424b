"""Where the time of a pass goes: each top-level part of a network, by forward hooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class StageClock:
    """Sums the time spent between entering and leaving named stages.

    On a GPU the moments are events in its queue, read at the end, so that watching does not make the processor wait.
    A clock for the device None runs nothing and costs nothing.
    """

    def __init__(self, device: torch.device | None) -> None:
        self.device = device
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        if self.device is None:
            yield
            return
        start = self._now()
        yield
        self._spans.append((name, start, self._now()))

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Inside the block every top-level part is a stage; the members of a list of modules count together."""
        handles = []
        for name, child in network.named_children():
            for member in child if isinstance(child, nn.ModuleList) else [child]:
                before, after = self._hooks(name)
                handles += [member.register_forward_pre_hook(before), member.register_forward_hook(after)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def seconds(self) -> dict[str, float]:
        """Sum for each stage, in the order in which the stages were first left."""
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        sums: dict[str, float] = {}
        for name, start, stop in self._spans:
            took = stop - start if isinstance(start, float) else start.elapsed_time(stop) / 1000
            sums[name] = sums.get(name, 0.0) + took
        return sums

    def _hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        started: list[Any] = []

        def before(module: nn.Module, inputs: Any) -> None:
            started.append(self._now())

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            self._spans.append((name, started.pop(), self._now()))

        return before, after

    def _now(self) -> Any:
        if self.device is None or self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
