"""The benchmark of the GPU: its code runs from end to end on a CPU, so that no time on a GPU is lost to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
ROWS = ("kernels", "scan", "gan", "inference", "causal", "stream", "mixing", "compiled")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_every_row_runs(tmp_path: Path) -> None:
    result = run("--dry-run", "--json", str(tmp_path / "lines.jsonl"))
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert tuple(dict.fromkeys(line["row"] for line in lines)) == ROWS
    assert all("value" in line and line["name"] in result.stdout for line in lines)
    assert any("our scan in its layout" in line["note"] or "mamba-ssm" in line["note"] for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so() -> None:
    result = run()
    assert result.returncode == 1 and result.stderr.startswith("nothing measured: the GPU kernels need")


def test_a_failing_row_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import gpu
        import gpu_table
    finally:
        sys.path.remove(str(SCRIPT.parent))
    monkeypatch.setattr(gpu, "ROWS", {"broken": "no_such_module", "mixing": "gpu_training"})
    monkeypatch.syspath_prepend(SCRIPT.parent)
    lines = tmp_path / "lines.jsonl"
    assert gpu.run_here(["broken", "mixing"], gpu_table.Setting(True), gpu_table.Table(lines)) == ["broken"]
    notes = [json.loads(line) for line in lines.read_text().splitlines()]
    assert "ModuleNotFoundError" in notes[0]["note"] and notes[1]["row"] == "mixing"
    assert not gpu.run_apart("mixing", lines, seconds=0.01)
    assert "took longer" in json.loads(lines.read_text().splitlines()[-1])["note"]
