"""`semamba convert`: official files in, a model of ours out, nothing replaced unasked."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from typer.testing import CliRunner

from semamba import checkpoint
from semamba.cli import app
from tests.test_convert import official_state, official_yaml


def test_convert(tmp_path: Path) -> None:
    described = official_yaml()
    torch.save({"generator": official_state(described)}, tmp_path / "o.pth")
    (tmp_path / "o.yaml").write_text(yaml.safe_dump(described))
    words = ["convert", *(str(tmp_path / name) for name in ("o.pth", "o.yaml", "out"))]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "parameters converted" in result.stdout, result.output
    checkpoint.load(tmp_path / "out")
    assert CliRunner().invoke(app, words).exit_code == 1
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
