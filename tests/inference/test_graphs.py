"""Replayed calls equal plain ones, whatever the shapes, states and failures; captured by a stand-in for CUDA."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from semamba.inference.core import CausalCore, ChunkCore, runner
from semamba.inference.enhance import Enhancer
from semamba.inference.graphs import Graphs, flatten, rebuild

from .conftest import make_scale


class Memory(NamedTuple):
    total: Tensor
    last: Tensor | None


def step(x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
    total = x.sum(0) if memory is None else memory.total + x.sum(0)
    return x * total, Memory(total, x[-1])


class Recorder:
    """Captures as CUDA does: fixed memory for arguments and results, written anew by each replay."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Callable[[], None], Any]:
        self.captures += 1
        outputs = function(*arguments)

        def replay() -> None:
            self.replays += 1
            for old, new in zip(flatten(outputs)[0], flatten(function(*arguments))[0], strict=True):
                old.copy_(new)

        return replay, outputs


def test_a_stream_with_a_state_is_the_same() -> None:
    recorder = Recorder()
    graphs, states = Graphs(recorder), [None, None]
    kept = []
    for x in torch.randn(6, 3, 4).unbind():
        found, states[0] = graphs(step, x, states[0])  # type: ignore[call-overload]
        wanted, states[1] = step(x, states[1])  # type: ignore[call-overload]
        kept.append((found, wanted))
    assert (recorder.captures, recorder.replays) == (
        1,
        4,
    )  # the first has no state, the second is the first of its kind
    assert all(torch.equal(a, b) for a, b in kept)  # also those that later replays could have written over
    assert isinstance(states[0], Memory) and torch.equal(states[0].total, states[1].total)


def test_shapes_have_graphs_of_their_own_and_only_when_they_come_again() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for size in (2, 3, 2, 4, 3, 2, 5):
        x = torch.randn(size, 4)
        assert torch.equal(graphs(step, x, None)[0], step(x, None)[0])
    assert (recorder.captures, recorder.replays) == (2, 3)


def test_what_is_neither_tensor_nor_tuple_is_called_as_it_is() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for _ in range(3):
        assert graphs(lambda x: x[0] + 1, [torch.ones(1)]) == 2
    assert not recorder.captures


def test_few_graphs_are_kept() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for size in (*range(1, 7), *range(1, 7)):
        graphs(step, torch.ones(size, 4), None)
    assert recorder.captures == 6 and len(graphs._graphs) == 4
    graphs.clear()
    graphs(step, torch.ones(6, 4), None)
    assert recorder.captures == 6 and not graphs._graphs


def test_weights_that_change_in_place_are_seen() -> None:
    layer, graphs, x = torch.nn.Linear(3, 3), Graphs(Recorder()), torch.randn(2, 3)
    for _ in range(3):
        graphs(layer, x)
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal(graphs(layer, x), layer(x))


def test_a_failing_capture_is_said_once_and_everything_goes_on() -> None:
    def fails(function: object, arguments: object) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs, x = Graphs(fails), torch.randn(2, 4)
    graphs(step, x, None)
    with pytest.warns(UserWarning, match="operation not permitted when stream is capturing$"):
        assert torch.equal(graphs(step, x, None)[0], step(x, None)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert torch.equal(graphs(step, x, None)[0], step(x, None)[0])


def test_on_the_cpu_nothing_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semamba.inference.graphs.capture_cuda", lambda *_: pytest.fail("captured"))
    graphs, x = Graphs(), torch.randn(2, 4)
    for _ in range(4):
        assert torch.equal(graphs(step, x, None)[0], step(x, None)[0])


def test_threads_share_the_buffers_one_at_a_time() -> None:
    graphs, wrong = Graphs(Recorder()), []

    def work(seed: int) -> None:
        x = torch.full((3, 4), float(seed))
        for _ in range(30):
            if not torch.equal(graphs(step, x, None)[0], step(x, None)[0]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nested_values_survive_the_way_there_and_back() -> None:
    value = (torch.ones(2), None, (Memory(torch.zeros(1), None),), ())
    tensors, layout = flatten(value)
    again = rebuild(layout, iter(tensors))
    assert again[0] is value[0] and again[1] is None and isinstance(again[2][0], Memory) and again[3] == ()


@pytest.mark.parametrize("hop", [256, 2000])
def test_a_stream_through_graphs_is_the_same(tiny: Enhancer, hop: int) -> None:
    wave = np.random.default_rng(0).standard_normal((2, 20 * hop)).astype(np.float32)
    waves = []
    for recorder in (None, Recorder()):
        runner(tiny.model)._graphs = Graphs(recorder)
        core = CausalCore(tiny.model, 2)
        pieces = [core.push(block) for block in np.split(wave, 20, 1)]
        waves.append(np.concatenate([*pieces, core.finish()], 1))
    assert recorder is not None and recorder.replays > 10
    assert np.array_equal(*waves)


def test_chunks_through_graphs_are_the_same() -> None:
    model, wave = make_scale(causal=False, gain=0.5, normalise="rms"), np.ones((2, 60_000), np.float32)
    recorder = Recorder()
    runner(model)._graphs = Graphs(recorder)
    core = ChunkCore(model, 2, 8000, 800)
    made = np.concatenate([core.push(wave), core.finish()], 1)
    assert recorder.captures == 1 and recorder.replays > 10
    assert np.allclose(made, 0.5 * wave, atol=1e-5)


def test_weights_that_moved_get_new_graphs() -> None:
    model = torch.nn.Linear(2, 2)
    model.stft = make_scale(causal=True).stft  # type: ignore[assignment]
    first = runner(model)
    assert runner(model) is first
    model.double()
    assert runner(model) is not first


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_equal_plain_calls() -> None:
    graphs, states = Graphs(), [None, None]
    for x in torch.randn(6, 3, 4, device="cuda").unbind():
        found, states[0] = graphs(step, x, states[0])  # type: ignore[call-overload]
        wanted, states[1] = step(x, states[1])  # type: ignore[call-overload]
        assert torch.equal(found, wanted)
    assert len(graphs._graphs) == 1
