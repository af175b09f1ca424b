"""What is written: graphs that say what PyTorch says, and a description that is true."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from semamba import checkpoint, models
from semamba.errors import SemambaError
from semamba.export.onnx import TOLERANCE, export, probe
from semamba.export.runtime import OnnxEnhancer
from semamba.inference.enhance import Enhancer
from semamba.models.basic import BasicConfig
from semamba.models.mixers import MixerConfig
from tests.export.conftest import store

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx: pip install 'semamba[export]'")


def test_description(exported: dict[str, Path]) -> None:
    folder = exported["step-onnx"]
    described = json.loads((folder / "model.json").read_text())
    assert described["form"] == "step" and described["sample_rate"] == 16_000
    assert described["latency_samples"] == 511 and described["stft"]["hop_length"] == 256
    assert [state["name"] for state in described["states"]] == ["level", "blocks_0_conv", "blocks_0_scan"]
    assert [state["shape"] for state in described["states"]] == [[1, 2], [6, 3, 16], [6, 16, 4]]
    assert set(described["graphs"]) == {"float32", "float16", "int8"}
    for graph in described["graphs"].values():
        content = (folder / graph["file"]).read_bytes()
        assert graph["sha256"] == hashlib.sha256(content).hexdigest() and graph["bytes"] == len(content)
    assert described["graphs"]["float32"]["max_error"] < 1e-5
    assert not list(folder.glob(".*"))  # nothing half done is left


def test_graphs_name_what_the_description_names(exported: dict[str, Path]) -> None:
    for name in ("step-onnx", "whole-onnx"):
        described = json.loads((exported[name] / "model.json").read_text())
        graph = onnx.load(exported[name] / "model.onnx")
        assert [value.name for value in graph.graph.input] == ["spectrum", *(s["name"] for s in described["states"])]
        assert [value.name for value in graph.graph.output] == ["enhanced", *(s["output"] for s in described["states"])]
        assert {entry.domain: entry.version for entry in graph.opset_import}[""] == described["opset"] == 18
        assert {node.domain for node in graph.graph.node} == {""}  # what every runtime knows, browsers too


def test_nothing_of_this_machine_is_inside(exported: dict[str, Path]) -> None:
    here = str(Path(__file__).resolve().parents[2]).encode()
    for folder in (exported["step-onnx"], exported["whole-onnx"]):
        for path in folder.iterdir():
            content = path.read_bytes()
            assert here not in content and b"site-packages" not in content, path.name


@pytest.mark.parametrize("name", ["sweeps", "lstm", "both-ways"])
def test_other_models_say_what_pytorch_says(name: str, tmp_path: Path) -> None:
    model = store(name, tmp_path)
    (graph,) = export(model, tmp_path / "graphs", ["float32"])
    wave = probe(0.7)[None] * np.float32([[1.0], [-0.3]])  # another length than the one that was traced
    expected = Enhancer(checkpoint.load(model), "cpu")(wave)
    assert graph.error < TOLERANCE
    np.testing.assert_allclose(OnnxEnhancer(tmp_path / "graphs")(wave), expected, atol=1e-5)


def test_a_model_that_reads_phases(tmp_path: Path) -> None:
    """Where a phase wraps around, a rounding of the input moves the output, in PyTorch too: nearly all is equal."""
    export(store("phases", tmp_path), tmp_path / "graphs", ["float32"])
    wave = probe(0.7)
    expected = Enhancer(checkpoint.load(tmp_path / "phases"), "cpu")(wave)
    difference = OnnxEnhancer(tmp_path / "graphs")(wave) - expected
    assert np.quantile(np.abs(difference), 0.9) < TOLERANCE and np.abs(expected - wave).max() > 0.01


def test_precisions_cost_what_they_say(exported: dict[str, Path]) -> None:
    graphs = json.loads((exported["step-onnx"] / "model.json").read_text())["graphs"]
    decibels = [graphs[precision]["signal_to_error_db"] for precision in ("float32", "float16", "int8")]
    assert decibels[0] > 100 and decibels[1] > 50 and decibels[2] > 20
    assert decibels == sorted(decibels, reverse=True)


def test_a_memory_that_grows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="number of frames that grows"):
        export(store("forgetless", tmp_path), tmp_path / "graphs")
    assert not (tmp_path / "graphs").exists()


def test_a_model_that_keeps_the_length_that_was_traced_is_refused(tmp_path: Path) -> None:
    config = BasicConfig(channels=(16, 8), blocks=1, mixer=MixerConfig("mamba", chunk=8, d_state=4))
    checkpoint.save(tmp_path / "model", models.build(config), {})
    with pytest.raises(SemambaError, match="cannot be exported for any length"):
        export(tmp_path / "model", tmp_path / "graphs")
    assert not list((tmp_path / "graphs").iterdir())


def test_an_export_is_not_overwritten_by_accident(exported: dict[str, Path]) -> None:
    with pytest.raises(SemambaError, match="--overwrite"):
        export(exported["step"], exported["step-onnx"])


def test_overwriting_leaves_nothing_of_the_old_one(exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(exported["whole-onnx"], tmp_path / "graphs")
    export(exported["step"], tmp_path / "graphs", ["float32"], overwrite=True)
    assert {path.name for path in (tmp_path / "graphs").iterdir()} == {"model.json", "model.onnx"}
    assert OnnxEnhancer(tmp_path / "graphs").causal


def test_a_graph_that_differs_is_not_kept(
    exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semamba.export.onnx.OnnxEnhancer", lambda *_: lambda wave: 1.001 * wave)
    with pytest.raises(SemambaError, match="differs from PyTorch"):
        export(exported["step"], tmp_path, ["float32"])
    assert not list(tmp_path.iterdir())
