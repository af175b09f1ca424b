"""Exports of small models with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from semamba import checkpoint, models
from semamba.models.advanced import AdvancedConfig
from semamba.models.basic import BasicConfig
from semamba.models.causal import CausalConfig
from semamba.models.mixers import MixerConfig
from semamba.spectrum import StftConfig

STREAMING = StftConfig(n_fft=256, hop_length=64, window="hann", framing="causal", compression="log1p")
CONFIGS: dict[str, Any] = {
    "step": CausalConfig(channels=8, sub_bands=6, d_model=8, blocks=1, layers=1, d_state=4, heads=2),
    "sweeps": CausalConfig(channels=8, sub_bands=6, d_model=8, blocks=1, layers=1, d_state=4, frequency="mamba"),
    "lstm": BasicConfig(stft=STREAMING, channels=(8, 8), blocks=1, mixer=MixerConfig("lstm", bidirectional=False)),
    "both-ways": BasicConfig(channels=(8, 8), blocks=1, mixer=MixerConfig("lstm")),
    "whole": BasicConfig(channels=(8, 8), blocks=1, mixer=MixerConfig(expand=1, d_state=2), normalise="rms"),
    "phases": AdvancedConfig(
        stft=StftConfig(n_fft=64, hop_length=16),
        **{"channels": 4, "dense_depth": 1, "blocks": 1, "mixer": MixerConfig("transformer", heads=1)},
    ),
    "forgetless": BasicConfig(
        stft=STREAMING, channels=(8, 8), blocks=1, mixer=MixerConfig("transformer", bidirectional=False)
    ),
}


def store(name: str, folder: Path) -> Path:
    """A folder with random weights of one of `CONFIGS`."""
    torch.manual_seed(0)
    checkpoint.save(folder / name, models.build(CONFIGS[name]), {})
    return folder / name


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder with weights and, under `<name>-onnx`, with graphs, of a model that streams and one that does not."""
    pytest.importorskip("onnxscript", reason="graphs are written with onnxscript: pip install 'semamba[export]'")
    pytest.importorskip("onnxruntime", reason="graphs run in onnxruntime: pip install 'semamba[export]'")
    from semamba.export.onnx import PRECISIONS, export

    folder = tmp_path_factory.mktemp("export")
    for name in ("step", "whole"):
        export(store(name, folder), folder / f"{name}-onnx", PRECISIONS)
    return {path.name: path for path in folder.iterdir()}
