"""The GPU kernels, run on the CPU in Triton's interpreter: in its own process, since it is chosen before import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semamba.ops import backend_for, gpu, using

CASES = Path(__file__).with_name("triton_cases.py")
needs_triton = pytest.mark.skipif(not gpu.available(), reason=gpu.why_unavailable() or "triton is there")


@needs_triton
def test_everything_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=CASES.parents[2])
    assert result.returncode == 0, result.stdout[-6000:]


def test_triton_is_not_loaded_by_an_import() -> None:
    script = "import sys, semamba.ops; print('triton' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_without_triton_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "available", lambda: False)
    with pytest.raises(RuntimeError, match="pip install 'semamba\\[triton\\]'"), using("triton"):
        pass


def test_cpu_tensors_do_not_take_it() -> None:
    assert backend_for(torch.zeros(1)) != "triton"
