"""Where batches come from: the mixer on the host, or the one on the device, as the recipe says."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from semamba.data.manifest import Manifest
from semamba.errors import SemambaError
from semamba.train import sources
from tests.data.conftest import corpus  # noqa: F401 (a fixture)
from tests.train.tiny import recipe


@pytest.mark.parametrize("where", ["host", "device"])
def test_batches_go_on_at_any_step(corpus: Path, where: str) -> None:  # noqa: F811
    made = recipe(mix={"crop_seconds": 0.25}, train={"mix_on": where, "workers": 0})
    open_at = sources.open_training(made, Manifest.read(corpus))
    whole, rest = list(islice(open_at(0), 3)), list(islice(open_at(1), 2))
    for batch, again in zip(whole[1:], rest, strict=True):
        assert all(x.shape == (2, 4000) and torch.equal(x, y) for x, y in zip(batch, again, strict=True))


def test_a_gpu_mixes_for_itself_unless_told_otherwise(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    asked = []

    class Mixer:
        def __init__(self, *arguments: object, **more: object) -> None:
            asked.append(arguments[2])

    monkeypatch.setattr(sources, "DeviceMixer", Mixer)
    manifest, gpu = Manifest.read(corpus), torch.device("cuda", 0)
    for where, device in (("auto", sources.CPU), ("host", gpu), ("auto", gpu), ("device", sources.CPU)):
        sources.open_training(recipe(train={"mix_on": where}), manifest, device=device)
    assert asked == [gpu, sources.CPU]


def test_rows_of_a_test_split_do_not_choose_the_weights(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,split,kind\nmine/clean/a.wav,test,paired_clean\n")
    with pytest.raises(SemambaError, match=r"valid\.split 'mine' holds mine/clean/a\.wav of split 'test'"):
        sources.open_validation(recipe(valid={"split": "mine"}), Manifest.read(tmp_path / "manifest.csv"))
