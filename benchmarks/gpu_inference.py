"""Rows of benchmarks/gpu.py: files and streams, as plain calls and as CUDA graphs, through what `Enhancer` uses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from gpu_table import RATE, Line, Setting, attempt  # beside this file
from torch import Tensor, nn

from semamba import models
from semamba.inference.core import CausalCore, Runner, runner
from semamba.inference.graphs import Graphs


def inference(setting: Setting) -> Iterator[Line]:
    """From waveform to waveform on the device."""
    for name in setting.size(("advanced-mamba", "causal-medium"), ("causal-small",)):
        model = build(setting, name)
        for seconds in setting.size((1.0, 3.0, 10.0, 30.0), (0.1,)):
            label = f"{name}, {seconds:g} s"
            plain = attempt(f"{label}, plain", partial(file_plain, setting, label, model, seconds))
            yield plain
            graph = partial(file_graph, setting, label, model, seconds, plain.value or float("nan"))
            yield attempt(f"{label}, as a CUDA graph", graph)


@torch.inference_mode()
def file_plain(setting: Setting, label: str, model: nn.Module, seconds: float) -> Line:
    whole, wave = Runner(model).whole, noise(setting, seconds)
    time, memory = setting.peak(lambda: setting.milliseconds(lambda: whole(wave)))
    return Line(f"{label}, plain", time, "ms", f"{seconds / time * 1e3:.0f} x real time, {memory:.1f} GiB")


@torch.inference_mode()
def file_graph(setting: Setting, label: str, model: nn.Module, seconds: float, plain: float) -> Line:
    own, wave = Runner(model), noise(setting, seconds)
    wanted = own.whole(wave)[0]
    for _ in range(2):  # the second call captures
        own.run(own.whole, wave)
    found = own.run(own.whole, wave)[0]
    time = setting.milliseconds(lambda: own.run(own.whole, wave))
    error = float((found - wanted).abs().max() / wanted.abs().max())
    note = f"{seconds / time * 1e3:.0f} x real time, {plain / time:.2f} x as fast as plain, off by {error:.1e}"
    return Line(f"{label}, {kind(own._graphs)}", time, "ms", note)


def noise(setting: Setting, seconds: float) -> Tensor:
    return 0.1 * torch.randn(1, round(seconds * RATE), device=setting.device)


def kind(graphs: Graphs) -> str:
    if isinstance(graphs, _Plain):
        return "plain"
    return "as a CUDA graph" if graphs._graphs else "NOT captured"


def stream(setting: Setting) -> Iterator[Line]:
    """Wall clock of one hop through the core, host to host."""
    for name in setting.size(("causal-small", "causal-medium"), ("causal-small",)):
        model = build(setting, name)
        for graphs in (_Plain(), Graphs()):
            yield attempt(f"{name}, one hop", partial(one_hop, setting, name, model, graphs))


def one_hop(setting: Setting, name: str, model: nn.Module, graphs: Graphs) -> Line:
    runner(model)._graphs = graphs
    hop = runner(model).model.stft.hop_length
    times = setting.latencies(partial(_hop, CausalCore(model, 1), hop))
    late = times[int(0.99 * (len(times) - 1))]
    note = f"99 of 100 within {late:.2f} ms; a hop is {1e3 * hop / RATE:g} ms of sound"
    return Line(f"{name}, one hop, {kind(graphs)}", times[len(times) // 2], "ms", note)


def _hop(core: CausalCore, samples: int) -> np.ndarray:
    return core.push(0.1 * np.random.default_rng(0).standard_normal((1, samples), np.float32))


class _Plain(Graphs):
    """No graphs."""

    @torch.inference_mode()
    def __call__(self, function, *arguments):  # type: ignore[no-untyped-def]
        return function(*arguments)


def build(setting: Setting, name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.build(models.preset(name)).to(setting.device).eval()
