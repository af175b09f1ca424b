"""What a model costs, for reports: nothing is run, everything is counted."""

from __future__ import annotations

from semamba import checkpoint
from semamba.models import config_from_dict
from semamba.models.complexity import profile


def cost(name: str) -> dict[str, float | None]:
    """{"parameters", "macs": for a second of audio, "latency_ms": None when the whole signal is needed}."""
    found = profile(config_from_dict(checkpoint.describe(name)["model"]))
    return {"parameters": found.parameters, "macs": found.honest_macs_per_second, "latency_ms": found.latency_ms}
