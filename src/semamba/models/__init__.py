"""Every model, built from its frozen config alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from semamba.config import parse
from semamba.errors import SemambaError

if TYPE_CHECKING:
    from torch import nn


def config_class(kind: str) -> type:
    """The config dataclass of a kind of model."""
    if kind == "causal":
        from semamba.models.causal import CausalConfig

        return CausalConfig
    if kind == "basic":
        from semamba.models.basic import BasicConfig

        return BasicConfig
    if kind == "advanced":
        from semamba.models.advanced import AdvancedConfig

        return AdvancedConfig
    raise SemambaError(f"model kind '{kind}': unknown; known kinds: causal, basic, advanced")


def config_from_dict(mapping: Mapping[str, Any], where: str = "") -> Any:
    """A model config from its stored mapping (`kind` picks the class), or from {"preset": name, changes...}."""
    if "preset" in mapping:
        from semamba.config import merge, to_dict

        base = to_dict(preset(str(mapping["preset"])))
        return config_from_dict(merge(base, {k: v for k, v in mapping.items() if k != "preset"}), where)
    return parse(config_class(str(mapping.get("kind", ""))), mapping, where)


def preset(name: str) -> Any:
    """The config of a named model of the table in `semamba models`."""
    from semamba.models.presets import PRESETS

    if name not in PRESETS:
        raise SemambaError(f"model preset '{name}': unknown; known presets: {', '.join(PRESETS)}")
    return PRESETS[name]


def build(config: Any) -> nn.Module:
    """A freshly initialised model for a config."""
    if config.kind == "causal":
        from semamba.models.causal import CausalModel

        return CausalModel(config)
    if config.kind == "basic":
        from semamba.models.basic import BasicModel

        return BasicModel(config)
    from semamba.models.advanced import AdvancedModel

    return AdvancedModel(config)
