"""The picture is written, and what could stop it is said first."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from semamba.errors import SemambaError
from semamba.profiling import plot

POINTS = [{"seconds": float(s), "time": 0.1 * s, "peak_bytes": 10**6 * s} for s in (1, 2, 5)]
DOCUMENT = {
    "machine": {"gpu": None, "processor": "a processor", "threads": 1, "torch": "2"},
    "lengths": [
        {"name": "core-lstm", "points": POINTS},
        {"name": "core-mamba", "points": [*POINTS[:2], {"seconds": 5.0, "skipped": "takes over 60 s"}]},
    ],
}


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_written(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"growth{suffix}"
    plot.prepare(path)
    plot.draw(DOCUMENT, path)
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert "60 s" in plot._label(DOCUMENT["lengths"][1])


def test_a_wrong_place_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match=".png"):
        plot.prepare(tmp_path / "growth.gif")
    with pytest.raises(SemambaError, match="no folder"):
        plot.prepare(tmp_path / "missing" / "growth.png")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    honest = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return honest(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SemambaError, match=r"semamba\[plot\]"):
        plot.prepare(tmp_path / "growth.png")
