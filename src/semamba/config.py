"""Strict configuration: YAML files and `a.b=c` overrides become frozen dataclasses, and back.

A component owns a small frozen dataclass that determines it completely. This module knows none of
them: it only turns mappings into dataclasses and refuses what does not fit, by name.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from semamba.errors import SemambaError

T = TypeVar("T")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises SemambaError when the file is missing, broken or not a mapping."""
    import yaml

    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SemambaError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SemambaError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise SemambaError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise SemambaError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    return data


def load_layers(path: str | Path, own: Iterable[str] = ()) -> dict[str, Any]:
    """Like `load_yaml`, for a file whose key `base` may name another one, relative to it, that the rest is laid over.

    The keys in `own` are not taken from a base. Raises SemambaError also when files name each other in a circle.
    """
    own = tuple(own)
    layers: list[dict[str, Any]] = []
    seen: list[Path] = []
    following: Path | None = Path(path)
    while following is not None:
        if following.resolve() in seen:
            raise SemambaError(f"{path}: its base leads back to {following}; a file cannot be laid over itself")
        seen.append(following.resolve())
        layer = load_yaml(following)
        base = layer.pop("base", None)
        if base is not None and not isinstance(base, str):
            raise SemambaError(f"{following}: base must name a file (got {base!r})")
        layers.append(layer)
        following = None if base is None else following.parent / base
    result: dict[str, Any] = {}
    for layer in reversed(layers[1:]):
        result = merge(result, {key: value for key, value in layer.items() if key not in own})
    return merge(result, layers[0])


def parse(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from a mapping, checking every key and type.

    Strings that spell a number become numbers where one is expected (PyYAML reads `5e-4` as text).
    `where` names the source (a file) in the error message.
    """
    from pydantic import TypeAdapter, ValidationError

    _refuse_unknown(cls, mapping, where, ())
    try:
        return TypeAdapter(cls).validate_python(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SemambaError(f"{_prefix(where)}{key or cls.__name__}: {first['msg']} (got {first['input']!r})") from None


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `mapping` with `a.b=c` assignments applied; values are read as YAML scalars."""
    import yaml

    result = _copy(mapping)
    for item in overrides:
        key, sign, text = item.partition("=")
        if not sign or not key:
            raise SemambaError(f"override '{item}': expected key=value, for example optimiser.lr=1e-3")
        node = result
        *parents, last = key.split(".")
        for name in parents:
            child = node.setdefault(name, {})
            if not isinstance(child, dict):
                raise SemambaError(f"override '{item}': '{name}' holds a value, not a group of keys")
            node = child
        try:
            node[last] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            raise SemambaError(f"override '{item}': '{text}' is not valid YAML") from None
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, group by group. What changes stands first: of patterns the first counts."""
    result = {}
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        result[key] = merge(base[key], value) if both else value
    return result | _copy({key: value for key, value in base.items() if key not in changes})


def to_dict(config: Any) -> dict[str, Any]:
    """A JSON-able mapping of a dataclass; `parse` turns it back into an equal one."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _copy(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}


def _refuse_unknown(cls: type, mapping: Mapping[str, Any], where: str, path: tuple[str, ...]) -> None:
    from typing import get_type_hints

    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key, value in mapping.items():
        dotted = ".".join((*path, str(key)))
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            advice = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(names)}"
            raise SemambaError(f"{_prefix(where)}unknown key '{dotted}'; {advice}")
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            _refuse_unknown(hints[key], value, where, (*path, str(key)))  # type: ignore[arg-type]


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""
