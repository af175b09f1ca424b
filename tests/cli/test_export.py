"""`semamba export`"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from semamba.cli import app
from tests.export.conftest import store

run = CliRunner().invoke


def test_writes_graphs_and_says_how_good_they_are(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="graphs are written with onnxscript: pip install 'semamba[export]'")
    result = run(app, ["export", str(store("step", tmp_path)), "-o", str(tmp_path / "graphs")])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "graphs").iterdir()} == {"model.json", "model.onnx", "model.float16.onnx"}
    assert result.output.count("largest difference to PyTorch") == 2


def test_refuses_a_precision_that_is_none(tmp_path: Path) -> None:
    result = run(app, ["export", "causal-small", "-o", str(tmp_path / "graphs"), "--precision", "int4"])
    assert result.exit_code == 2 and "int4" in result.output


def test_refuses_a_model_that_is_not_there(tmp_path: Path) -> None:
    result = run(app, ["export", "causal-smal", "-o", str(tmp_path / "graphs")])
    assert result.exit_code == 1 and "causal-small" in result.output
