"""Models to ONNX graphs, each compared with PyTorch before it counts. The only file that imports onnx.

A model that streams becomes a **step**: one frame (1, 1, F, 2) and its states in, the enhanced frame and the new states
out. Any other becomes an **offline** graph: (1, T, F, 2) in and out, T free. The Fourier transforms stay outside, so
that every runtime, in browsers too, has all that a graph needs: plain operators of opset 18.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from semamba import __version__, checkpoint, ops
from semamba.config import to_dict
from semamba.errors import SemambaError
from semamba.export.runtime import DESCRIPTION, FORMAT, OnnxEnhancer
from semamba.inference.engine import SAMPLE_RATE
from semamba.inference.enhance import Enhancer
from semamba.sessions import quantise

OPSET = 18
PRECISIONS = ("float32", "float16", "int8")
TOLERANCE = 1e-4  # largest difference to PyTorch in a waveform with full scale 1
INPUT, OUTPUT = "spectrum", "enhanced"
_TRACED_FRAMES = 43  # a prime, so that no size of a model is taken for it
_HALVED = ("MatMul", "Gemm", "Conv", "ConvTranspose")  # operators whose weights bear rounding to float16


@dataclass(frozen=True)
class Graph:
    """One file of an export. Errors are the largest differences to PyTorch on `probe`."""

    precision: str
    path: Path
    bytes: int
    error: float  # in the waveform, full scale 1
    decibels: float  # the same as a ratio of energies, signal to difference


class Step(nn.Module):
    """(frame, states...) -> (enhanced frame, states...)"""

    def __init__(self, model: nn.Module, layout: Any) -> None:
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, spectrum: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        enhanced, state = self.model(spectrum, pytree.tree_unflatten(list(states), self.layout))
        return enhanced, *pytree.tree_leaves(state)


class Offline(nn.Module):
    """spectrum -> enhanced spectrum"""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, spectrum: Tensor) -> Tensor:
        return self.model(spectrum)[0]


def export(
    name_or_path: str | Path, directory: str | Path, precisions: Sequence[str] = PRECISIONS[:2], overwrite: bool = False
) -> list[Graph]:
    """Write the graphs of a model and model.json, which describes them, into `directory`.

    Raises SemambaError for a model that cannot be exported, for a folder that holds an export (unless `overwrite`), and
    when the float32 graph differs from PyTorch by more than `TOLERANCE`, and by more than PyTorch from itself. Nothing
    is left behind then.
    """
    precisions = [name for name in PRECISIONS if name in precisions or name == "float32"]
    directory = Path(directory)
    before = set()
    if (directory / DESCRIPTION).exists():
        before = {_file(precision) for precision in PRECISIONS}
    if before and not overwrite:
        raise SemambaError(f"{directory}: holds an exported model already; allow its replacement by --overwrite")
    model: Any = checkpoint.load(name_or_path)
    states = _states(model)
    description = describe(Path(name_or_path).name, model, states)
    proto = _trace(model, states)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".export-") as folder:
        graphs = [_write(proto, precision, Path(folder), description) for precision in precisions]
        checkpoint.write_json(Path(folder) / DESCRIPTION, description)
        graphs = [_compare(graph, model, description) for graph in graphs]
        for graph in graphs:
            description["graphs"][graph.precision] |= {"max_error": graph.error, "signal_to_error_db": graph.decibels}
        checkpoint.write_json(Path(folder) / DESCRIPTION, description)
        for graph in graphs:
            graph.path.replace(directory / graph.path.name)
        (Path(folder) / DESCRIPTION).replace(directory / DESCRIPTION)
    for name in before - {graph.path.name for graph in graphs}:
        (directory / name).unlink(missing_ok=True)  # of an export with more precisions
    return [Graph(g.precision, directory / g.path.name, g.bytes, g.error, g.decibels) for g in graphs]


def describe(name: str, model: Any, states: list[tuple[str, Tensor]] | None) -> dict[str, Any]:
    """What model.json says about every graph of a model; `states` None: an offline graph."""
    return {
        "format": FORMAT,
        "name": name,
        "kind": model.config.kind,
        "form": "offline" if states is None else "step",
        "sample_rate": SAMPLE_RATE,
        "stft": to_dict(model.stft),
        "normalise": model.normalise,
        "latency_samples": None if states is None else model.stft.n_fft - 1,
        "input": INPUT,
        "output": OUTPUT,
        "frames_per_call": None if states is None else 1,
        "states": [
            {"name": state, "output": f"{state}_next", "shape": list(value.shape), "start": 0.0}
            for state, value in states or []
        ],
        "opset": OPSET,
        "made_with": {"semamba": __version__, "torch": str(torch.__version__)},
        "model": to_dict(model.config),
        "graphs": {},
    }


def probe(seconds: float) -> np.ndarray:
    """A sound to compare runtimes on, (n,): harmonics that come and go in noise that grows, then silence."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * time)) / SAMPLE_RATE
    voice = sum(np.sin(k * pitch) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 2.3 * time) > -0.2)
    noise = np.random.default_rng(0).standard_normal(time.size) * (0.2 + time / seconds)
    wave = 0.15 * voice + 0.05 * noise
    wave[round(0.9 * time.size) :] = 0
    return wave.astype(np.float32)


def _states(model: Any) -> list[tuple[str, Tensor]] | None:
    """Names and starting values (zeros) of the states of a model that streams, None for others."""
    if not (model.causal and model.stft.framing == "causal"):
        return None
    frames = torch.zeros(1, 2, model.stft.n_bins, 2)
    with torch.no_grad():
        first, second = (model(frames[:, :count])[1] for count in (1, 2))
    named = pytree.tree_flatten_with_path(first)[0]
    if [value.shape for _, value in named] != [value.shape for value in pytree.tree_leaves(second)]:
        raise SemambaError("this model remembers a number of frames that grows, which a graph with fixed states cannot")
    names = [re.sub(r"\W+", "_", pytree.keystr(path)).strip("_") for path, _ in named]
    return [(name, torch.zeros_like(value)) for name, (_, value) in zip(names, named, strict=True)]


def _trace(model: Any, states: list[tuple[str, Tensor]] | None) -> Any:
    """The graph as an onnx.ModelProto."""
    try:
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError:
        raise SemambaError("export needs onnx and onnxscript: pip install 'semamba[export]'") from None
    if states is None:
        module: nn.Module = Offline(model)
        arguments: tuple[Tensor, ...] = (torch.randn(1, _TRACED_FRAMES, model.stft.n_bins, 2),)
        inputs, outputs = [INPUT], [OUTPUT]
        shapes: Any = ({1: torch.export.Dim("frames", min=2)},)
    else:
        with torch.no_grad():
            layout = pytree.tree_flatten(model(torch.zeros(1, 1, model.stft.n_bins, 2))[1])[1]
        module = Step(model, layout)
        arguments = (torch.randn(1, 1, model.stft.n_bins, 2), *(value for _, value in states))
        inputs, outputs = [INPUT, *(name for name, _ in states)], [OUTPUT, *(f"{name}_next" for name, _ in states)]
        shapes = None
    with ops.using("graph"), torch.no_grad(), _quiet():
        try:  # strict: the other mode fixes the number of frames in some models, depending on what ran before
            traced = torch.export.export(module.eval(), arguments, dynamic_shapes=shapes, strict=True)
        except torch._dynamo.exc.UserError:  # an LSTM that reads both ways fixes it always, see `_free_length`
            traced = torch.export.export(module, arguments, strict=True)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table={torch.ops.aten.atan2.default: _atan2()},
        )
    assert program is not None  # a path was not given
    proto = program.model_proto
    _strip(proto.graph)
    if states is None:
        _free_length(proto.graph)
    return proto


def _atan2() -> Any:
    """The exporter's own gives -pi where the imaginary part is 0 and the real part negative; torch and C give pi."""
    import onnxscript

    op: Any = onnxscript.opset18

    def atan2(imag: Any, real: Any) -> Any:
        angle = op.Atan(op.Div(imag, op.Abs(real)))
        pi, zero = op.Constant(value_float=math.pi), op.Constant(value_float=0.0)
        half = op.Where(op.Less(imag, zero), op.Neg(pi), pi)
        return op.Where(op.Less(real, zero), op.Sub(half, angle), angle)

    return atan2


def _free_length(graph: Any) -> None:
    """Where the number of frames that was traced became a constant, let it be any."""
    from onnx import numpy_helper

    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[1].dim_param = "frames"
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            sizes = numpy_helper.to_array(tensor)
            if np.count_nonzero(sizes == _TRACED_FRAMES) == 1 and not (sizes < 0).any():
                free = np.where(sizes == _TRACED_FRAMES, -1, sizes)
                tensor.CopyFrom(numpy_helper.from_array(free, tensor.name))


def _strip(graph: Any) -> None:
    """Take out what the exporter notes about its own work: half of a small file, and paths of this machine."""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)
    for value in (*graph.value_info, *graph.input, *graph.output):
        del value.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantiser tell their progress, and the inner affairs of torch."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _file(precision: str) -> str:
    return "model.onnx" if precision == "float32" else f"model.{precision}.onnx"


def _write(proto: Any, precision: str, folder: Path, description: dict[str, Any]) -> Graph:
    import onnx

    path = folder / _file(precision)
    if precision == "int8":
        with _quiet():
            quantise(folder / "model.onnx", path)
    else:
        onnx.save(_halve(proto) if precision == "float16" else proto, path)
    content = path.read_bytes()
    onnx.checker.check_model(content, full_check=True)
    description["graphs"][precision] = {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Graph(precision, path, len(content), math.nan, math.nan)


def _halve(proto: Any) -> Any:
    """A copy with the weights of products and convolutions stored as float16; computed is in float32 as before."""
    import onnx
    from onnx import helper, numpy_helper

    halved = onnx.ModelProto()
    halved.CopyFrom(proto)
    graph = halved.graph
    wanted = {name for node in graph.node if node.op_type in _HALVED for name in node.input}
    casts = []
    for tensor in graph.initializer:
        if tensor.name in wanted and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            name, half = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return halved


def _compare(graph: Graph, model: Any, description: dict[str, Any]) -> Graph:
    """The graph through the runtime against PyTorch on the same sound, both at 16 kHz."""
    wave = probe(1.0 if description["kind"] == "advanced" else 3.0)
    enhancer = Enhancer(model, "cpu")
    expected = enhancer(wave)
    try:
        made = OnnxEnhancer(graph.path.parent, graph.precision)(wave)
    except SemambaError:
        raise
    except Exception as raised:  # onnxruntime's have no base of their own: a size that was traced stands in the graph
        name, reason = description["name"], str(raised).splitlines()[0]
        raise SemambaError(f"{name}: this kind of model cannot be exported for any length ({reason})") from None
    difference = made - expected
    error = float(np.abs(difference).max())
    energy = float(np.square(difference, dtype=np.float64).sum())
    decibels = 10 * math.log10(float(np.square(expected, dtype=np.float64).sum()) / max(energy, 1e-30))
    if graph.precision == "float32" and not error <= TOLERANCE:
        # A model that reads phases jumps where one wraps around, in PyTorch too, when the input moves by a rounding.
        rounding = np.float32(1) + np.random.default_rng(1).choice([-1, 1], wave.size).astype(np.float32) * 2**-23
        own = float(np.abs(enhancer((wave * rounding).astype(np.float32)) - expected).max())
        if not error <= 4 * own:
            raise SemambaError(
                f"{description['name']}: the graph differs from PyTorch by {error:.1e}, PyTorch from itself (with the "
                f"input rounded differently) by {own:.1e}; nothing was written"
            )
    return Graph(graph.precision, graph.path, graph.bytes, error, decibels)
