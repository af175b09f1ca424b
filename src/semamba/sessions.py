"""ONNX graphs at work: the one place that knows onnxruntime. A leaf, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semamba.errors import SemambaError


def open_session(path: str | Path, threads: int = 1, extra: str = "export") -> Any:
    """An onnxruntime.InferenceSession on the CPU with `threads` threads (0: as many as it likes).

    Raises SemambaError when the file or onnxruntime is missing (`extra` is the one to install), or the graph is broken.
    """
    path = Path(path)
    if not path.is_file():
        raise SemambaError(f"{path}: no such ONNX file")
    try:
        import onnxruntime
    except ImportError:
        raise SemambaError(f"{path.name} needs onnxruntime: pip install 'semamba[{extra}]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common class for what it raises
        raise SemambaError(f"{path}: not a graph that onnxruntime can run ({str(error).splitlines()[0]})") from None


def quantise(source: Path, target: Path) -> None:
    """Weights of matrix products as int8, activations quantised when they come (onnxruntime's dynamic quantisation).

    Needs onnx as well.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True)
