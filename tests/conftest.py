"""Fixtures that several rooms use."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of real data and reference values that lies beside some checkouts."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("the folder of real data and reference values is not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def _ordinary_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training settles in its process for good (heap, denormals); that of the tests has other things to do."""
    monkeypatch.setattr("semamba.train.allocator.prepare_cpu", lambda *_: True)
