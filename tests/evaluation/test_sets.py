"""Test sets from folders and manifests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError
from semamba.evaluation.sets import open_material, open_set, read_pair


def test_a_folder_of_pairs(pairs: Path) -> None:
    found = open_set(f"mine={pairs}")
    assert found.name == "mine" and [item.name for item in found.items] == ["u0.wav", "u1.wav", "u2.wav"]
    assert list(found.left_out) == ["alone.wav"]
    clean, noisy, rate = found.items[1].load()
    assert clean.shape == noisy.shape == (19200,) and rate == 16000 and not np.array_equal(clean, noisy)
    assert len(open_set(f"mine={pairs}", limit=2).items) == 2


def test_a_manifest_of_pairs(pairs: Path) -> None:
    kinds = ("clean", "noisy")
    rows = [f"{kind}/u{i}.wav,{split},paired_{kind},hello" for i, split in enumerate("ab") for kind in kinds]
    (pairs / "list.csv").write_text("\n".join(["path,split,kind,text", *rows]))
    found = open_set(f"mine={pairs / 'list.csv'}@b")
    assert [(item.name, item.text) for item in found.items] == [("noisy/u1.wav", "hello")]
    assert len(open_set(f"mine={pairs / 'list.csv'}").items) == 2
    with pytest.raises(SemambaError, match="no recorded pairs in 'c'"):
        open_set(f"mine={pairs / 'list.csv'}@c")


@pytest.mark.parametrize(
    ("text", "message"),
    [("noname", "write NAME="), ("=x", "write NAME="), ("a=", "write NAME="), ("a=/none", "no folder 'clean'")],
)
def test_wrong_specifications(text: str, message: str) -> None:
    with pytest.raises(SemambaError, match=message):
        open_set(text)


def test_pairs_that_do_not_fit(pairs: Path, tmp_path: Path) -> None:
    audio.write(tmp_path / "slow.wav", np.zeros((1, 19200), np.float32), 8000)
    audio.write(tmp_path / "short.wav", np.zeros((1, 100), np.float32), 16000)
    with pytest.raises(SemambaError, match="has 8000 Hz, its clean partner 16000"):
        read_pair(pairs / "clean/u0.wav", tmp_path / "slow.wav")
    with pytest.raises(SemambaError, match=r"short.wav: \(1, 100\)"):
        read_pair(pairs / "clean/u0.wav", tmp_path / "short.wav")


def test_material(pairs: Path) -> None:
    assert len(open_material(str(pairs / "speech"), "speech")) == 3
    assert len(open_material(str(pairs / "noise"), "noise")) == 3
    (pairs / "other.csv").write_text("path,split,kind\nclean/u0.wav,a,paired_clean\n")
    with pytest.raises(SemambaError, match="no rows of kind 'speech'"):
        open_material(str(pairs / "other.csv"), "speech")
