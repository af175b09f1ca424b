"""Named configurations: the rows of the paper's tables and our real-time family."""

from __future__ import annotations

from typing import Any

from semamba.models.causal import CausalConfig

PRESETS: dict[str, Any] = {
    "causal-small": CausalConfig(),
    "causal-medium": CausalConfig(channels=64, sub_bands=32, d_model=64, blocks=4),
}
