"""Every published size, counted; configurations survive being stored."""

from __future__ import annotations

import pytest
import torch

from semamba import config
from semamba.models import build, config_from_dict
from semamba.models.presets import PRESETS

PUBLISHED = {
    "basic-causal-mamba": 3_601_281,
    "basic-mamba": 6_491_009,
    "basic-transformer": 9_045_377,
    "basic-transformer-causal": 9_045_377,
    "advanced-mamba": 2_258_769,
    "advanced-mamba-uni": 1_408_849,
    "advanced-conformer": 2_048_849,
}
OURS = {"basic-lstm-causal": 3_778_433, "basic-lstm": 5_093_761, "advanced-transformer": 1_547_089}


@pytest.mark.parametrize(("name", "size"), [*PUBLISHED.items(), *OURS.items()])
def test_number_of_parameters(name: str, size: int) -> None:
    with torch.device("meta"):
        model = build(PRESETS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == size


def test_the_advanced_codec_alone() -> None:
    with torch.device("meta"):
        model = build(PRESETS["advanced-mamba"])
    mixers = sum(parameter.numel() for parameter in model.blocks.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) - mixers == 1_147_217


@pytest.mark.parametrize("name", PRESETS)
def test_a_stored_config_gives_the_same_config(name: str) -> None:
    stored = config.to_dict(PRESETS[name])
    assert config_from_dict(stored) == PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_what_the_surroundings_rely_on(name: str) -> None:
    model = build(PRESETS[name])
    assert model.config == PRESETS[name]
    assert model.stft == PRESETS[name].stft
    # A causal model must be framed causally and may not look at whole-utterance statistics.
    assert not model.causal or (model.stft.framing == "causal" and model.normalise == "none")
    assert model.causal == (name.startswith("causal") or "-causal" in name)
    assert model.normalise == ("rms" if name.startswith("advanced") else "none")
