"""Calls that come again with the same shapes, replayed as CUDA graphs: one launch instead of hundreds.

Chunks all have one size and the hops of a stream too, and on a GPU a small model spends its time on launches. A shape
is captured when it comes for the second time, so that a length that comes once costs nothing. Everywhere else, and
wherever capturing fails, calls run as they are.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

Function = Callable[..., Any]
# (function, its arguments) -> (what computes the outputs anew from the arguments' memory, those outputs)
Capture = Callable[[Function, tuple[Any, ...]], tuple[Callable[[], object], Any]]

_KEPT = 4  # graphs of one model; each holds the memory of a pass
_SEEN = 64  # shapes remembered


class _Graph(NamedTuple):
    inputs: list[Tensor]
    outputs: list[Tensor]
    layout: Hashable  # of the outputs
    replay: Callable[[], object]

    def __call__(self, given: list[Tensor]) -> Any:
        if self.inputs:
            torch._foreach_copy_(self.inputs, given)
        self.replay()
        results = [torch.empty_like(output) for output in self.outputs]
        torch._foreach_copy_(results, self.outputs)  # the next replay writes over the graph's own
        return rebuild(self.layout, iter(results))


class Graphs:
    """`graphs(function, *arguments)` is `function(*arguments)` for inference, with graphs where they help.

    Arguments and results are tensors, None and tuples of such, nested. The function may depend on nothing else that
    changes; weights that change in place are fine. Threads may share one.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        """`capture` None captures CUDA graphs of tensors on a GPU, and nothing of others."""
        self._capture = capture
        self._lock = threading.Lock()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._failed = False

    @torch.inference_mode()
    def __call__(self, function: Function, *arguments: Any) -> Any:
        try:
            tensors, layout = flatten(arguments)
        except TypeError:  # a state that is made of something else
            return function(*arguments)
        if self._failed or not (self._capture or _on_one_gpu(tensors)):
            return function(*arguments)
        with self._lock:  # a graph has one set of buffers
            graph = self._graph((function, layout), function, tensors)
            if graph is not None:
                return graph(tensors)
        return function(*arguments)

    def clear(self) -> None:
        """Forget everything, for weights that moved."""
        with self._lock:
            self._graphs.clear()
            self._seen.clear()

    def _graph(self, key: tuple[Hashable, Hashable], function: Function, tensors: list[Tensor]) -> _Graph | None:
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
            return None
        if len(self._graphs) >= _KEPT:
            self._graphs.popitem(last=False)
        inputs = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]
        try:
            replay, outputs = (self._capture or capture_cuda)(function, rebuild(key[1], iter(inputs)))
        except Exception as error:  # whatever it is, the plain call still works or says what is wrong
            self._failed = True
            reason = (str(error) or type(error).__name__).splitlines()[0]
            warnings.warn(f"CUDA graphs are not used, everything else goes on: {reason}", stacklevel=4)
            return None
        self._graphs[key] = graph = _Graph(inputs, *flatten(outputs), replay)
        return graph


def capture_cuda(function: Function, arguments: tuple[Any, ...]) -> tuple[Callable[[], object], Any]:
    """The call as a CUDA graph. It runs once beforehand, since nothing may be tuned or planned while capturing."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = function(*arguments)
    return graph.replay, outputs


def _on_one_gpu(tensors: list[Tensor]) -> bool:
    if not tensors or any(tensor.device != tensors[0].device for tensor in tensors):
        return False
    device = tensors[0].device
    if device.type != "cuda" or device.index != torch.cuda.current_device() or torch.version.cuda is None:
        return False
    # Buffers are guarded by a lock, which orders launches of one stream only.
    return torch.cuda.current_stream() == torch.cuda.default_stream()


def flatten(value: Any) -> tuple[list[Tensor], Hashable]:
    """The tensors of nested tuples, and all else about them. Raises TypeError for anything but tensors and None."""
    if value is None:
        return [], None
    if isinstance(value, Tensor):
        return [value], (value.shape, value.dtype)
    if not isinstance(value, tuple):
        raise TypeError(f"expected tensors, None or tuples, got {type(value).__name__}")
    parts = [flatten(item) for item in value]
    return [tensor for tensors, _ in parts for tensor in tensors], (type(value), *(layout for _, layout in parts))


def rebuild(layout: Any, tensors: Iterator[Tensor]) -> Any:
    """The inverse of `flatten`."""
    if layout is None:
        return None
    if not isinstance(layout[0], type):
        return next(tensors)
    items = [rebuild(part, tensors) for part in layout[1:]]
    return layout[0](*items) if hasattr(layout[0], "_fields") else tuple(items)
