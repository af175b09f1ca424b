"""Models of a few thousand weights, in folders, as they are measured in the process that asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semamba import checkpoint
from semamba.models import build, config_from_dict
from semamba.profiling.runner import Limits
from semamba.profiling.spec import Measured, Skipped, Spec
from semamba.profiling.worker import execute

CAUSAL = {"kind": "causal", "channels": 8, "sub_bands": 8, "d_model": 8, "blocks": 1, "heads": 2, "d_state": 4}
BASIC = {"kind": "basic", "channels": [8, 8], "blocks": 1, "mixer": {"expand": 2, "d_state": 4}}


def _saved(folder: Path, config: dict[str, Any]) -> str:
    checkpoint.save(folder, build(config_from_dict(config)), {})
    return str(folder)


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _saved(tmp_path_factory.mktemp("models") / "causal", CAUSAL)


@pytest.fixture(scope="session")
def basic(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _saved(tmp_path_factory.mktemp("models") / "basic", BASIC)


def here(spec: Spec, limits: Limits) -> Measured | Skipped:
    """Like `runner.measure`, without a process of its own and without limits."""
    return execute(spec, lambda event, **content: None)
