"""Where batches come from: the mixer on the host, or the one on the device, as the recipe says."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
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


def test_of_long_recordings_the_first_minute_and_a_half_is_taken(tmp_path: Path) -> None:
    rows = ["path,split,kind"]
    for name, kind in (("s", "speech"), ("n", "noise"), ("clean/p", "paired_clean"), ("noisy/p", "paired_noisy")):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(92 * 16000), 16000)
        rows.append(f"{name}.wav,valid,{kind}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    pairs = sources.open_validation(recipe(valid={"mixtures": 1}), Manifest.read(tmp_path / "manifest.csv"))
    assert [(len(pair.clean), len(pair.noisy)) for pair in pairs] == [(90 * 16000, 90 * 16000)] * 2


@pytest.mark.parametrize("where", ["host", "device"])
def test_another_seed_hears_other_mixtures(corpus: Path, where: str) -> None:  # noqa: F811
    first = []
    for seed in (0, 1):
        made = recipe(mix={"crop_seconds": 0.25}, train={"mix_on": where, "workers": 0, "seed": seed})
        first.append(next(sources.open_training(made, Manifest.read(corpus))(0))[0])
    assert not torch.equal(*first)


def test_limit_of_validation_and_sources_for_the_card(corpus: Path, tmp_path: Path) -> None:  # noqa: F811
    assert len(sources.open_validation(recipe(valid={"limit": 2}), Manifest.read(corpus))) == 2
    (tmp_path / "m.csv").write_text(
        "path,split,kind,source,licence,seconds\na.wav,train,speech,LJ: a.wav,CC0-1.0,90\n"
        "b.wav,train,speech,LJ: b.wav,CC0-1.0,60\nc.wav,train,noise,,,30\nd.wav,valid,speech,X,Y,9\n"
    )
    assert sources.describe_sources(Manifest.read(tmp_path / "m.csv")) == [
        {"kind": "noise", "source": "unnamed", "licence": "not stated", "files": 1, "minutes": 0.5},
        {"kind": "speech", "source": "LJ", "licence": "CC0-1.0", "files": 2, "minutes": 2.5},
    ]
