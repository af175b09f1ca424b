"""What an ablation file says: a base recipe, named differences from it, seeds, and one budget for all.

An axis of a grid is either `{label: changes, ...}` or a list of values for one dotted key; the variants of a grid are
all combinations. Every (variant, seed) becomes an ordinary recipe, so each run can be repeated alone with
`semamba train`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semamba import config, models
from semamba.errors import SemambaError
from semamba.train.recipe import Recipe, check, load_mapping, parse_duration

if TYPE_CHECKING:
    from semamba.models.complexity import Profile

Mapped = dict[str, Any]


@dataclass(frozen=True)
class BudgetConfig:
    """What every run gets; exactly one of the three."""

    steps: int | None = None
    audio: str | None = None  # '3h' of mixtures heard
    time: str | None = None  # '20m' of training


@dataclass(frozen=True)
class AblationConfig:
    """`common` changes the base for all variants; `baseline` names the variant that the others are compared with."""

    base: str  # a recipe, relative to this file
    budget: BudgetConfig
    name: str = ""
    notes: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    common: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    grid: dict[str, list[Any] | dict[str, dict[str, Any] | None]] = field(default_factory=dict)
    baseline: str = ""


@dataclass(frozen=True)
class Variant:
    """One row of the table: a checked recipe, still without its seed."""

    name: str
    mapping: Mapped  # the whole recipe as it is written for the run
    recipe: Recipe
    cost: Profile


@dataclass(frozen=True)
class Job:
    """One training."""

    variant: Variant
    seed: int
    seconds: float | None = None  # as in Plan

    @property
    def name(self) -> str:
        return f"{self.variant.name}/seed-{self.seed}"

    @property
    def mapping(self) -> Mapped:
        return config.merge(self.variant.mapping, {"train": {"seed": self.seed}})


@dataclass(frozen=True)
class Plan:
    """All runs of an ablation. `seconds` is the time budget of a run, None when steps are counted."""

    name: str
    notes: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    baseline: str
    seconds: float | None

    def jobs(self) -> Iterator[Job]:
        """Seed by seed, so that a table over all variants exists as early as possible."""
        for seed in self.seeds:
            for variant in self.variants:
                yield Job(variant, seed, self.seconds)


def read_plan(path: str | Path, overrides: Iterable[str] = ()) -> Plan:
    """Read an ablation file and build each of its variants once, without memory for the weights.

    `overrides` (a.b=c) change the recipe of every variant. Raises SemambaError naming file, variant and key.
    """
    path = Path(path)
    ablation = config.parse(AblationConfig, config.load_yaml(path), where=str(path))
    name = ablation.name or path.stem
    base = config.merge(load_mapping(path.parent / ablation.base), _nested(ablation.common, f"{path}: common"))
    changes = dict(_changes(ablation, str(path)))
    seconds = _check_budget(ablation.budget, str(path))
    if not ablation.seeds or len(set(ablation.seeds)) < len(ablation.seeds):
        raise SemambaError(f"{path}: seeds: expected different numbers, for example [0, 1, 2]")
    variants = []
    for label, change in changes.items():
        mapping = config.apply_overrides(config.merge(base, change), overrides)
        variants.append(_variant(f"{path}: variant '{label}'", name, label, mapping, ablation.budget))
    baseline = ablation.baseline or variants[0].name
    if baseline not in changes:
        raise SemambaError(f"{path}: baseline: no variant '{baseline}'; there are {', '.join(changes)}")
    return Plan(name, ablation.notes, tuple(variants), ablation.seeds, baseline, seconds)


def _variant(where: str, name: str, label: str, mapping: Mapped, budget: BudgetConfig) -> Variant:
    if not re.fullmatch(r"[\w.=+][\w.=+-]*", label):
        raise SemambaError(f"{where}: a name becomes a folder; use letters, digits and . _ = + -")
    mapping = config.merge(mapping, {"name": f"{name}-{label}"})
    if "model" not in mapping:
        raise SemambaError(f"{where}: its base lacks the key 'model'; it must be a training recipe")
    recipe = config.parse(Recipe, mapping, where)
    mapping = config.merge(mapping, {"train": {"steps": _steps(budget, recipe)}})
    recipe = config.parse(Recipe, mapping, where)
    check(recipe, where)
    try:
        cost = _cost(models.config_from_dict(recipe.model, "model"))
    except SemambaError as error:
        raise SemambaError(f"{where}: {error}") from None
    return Variant(label, mapping, recipe, cost)


@lru_cache
def _cost(model: Any) -> Profile:
    from semamba.models.complexity import profile

    return profile(model)


def _steps(budget: BudgetConfig, recipe: Recipe) -> int | str:
    if budget.audio is not None:
        return math.ceil(parse_duration(budget.audio) / (recipe.train.batch_size * recipe.mix.crop_seconds))
    return "auto" if budget.steps is None else budget.steps


def _check_budget(budget: BudgetConfig, where: str) -> float | None:
    given = [key for key in ("steps", "audio", "time") if getattr(budget, key) is not None]
    if len(given) != 1:
        raise SemambaError(f"{where}: budget: give one of steps, audio, time (got {', '.join(given) or 'none'})")
    try:
        seconds = [parse_duration(text) for text in (budget.audio, budget.time) if text is not None]
    except SemambaError as error:
        raise SemambaError(f"{where}: budget.{given[0]}: {error}") from None
    if any(value <= 0 for value in seconds):
        raise SemambaError(f"{where}: budget.{given[0]}: must be more than nothing")
    return seconds[0] if budget.time is not None else None


def _changes(ablation: AblationConfig, where: str) -> Iterator[tuple[str, Mapped]]:
    """(name, changes of the base) of every variant: the listed ones, then the grid's."""
    if not ablation.variants and not ablation.grid:
        raise SemambaError(f"{where}: neither variants nor grid: there is nothing to compare")
    for name, change in ablation.variants.items():
        yield name, _nested(change or {}, f"{where}: variants.{name}")
    axes = [list(_axis(key, values, f"{where}: grid.{key}")) for key, values in ablation.grid.items()]
    for point in itertools.product(*axes) if axes else ():
        name = "-".join(label for label, _ in point)
        if name in ablation.variants:
            raise SemambaError(f"{where}: grid: '{name}' is the name of a variant already")
        merged: Mapped = {}
        for _, change in point:
            merged = config.merge(merged, change)
        yield name, merged


def _axis(key: str, values: list[Any] | Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapped]]:
    if not values:
        raise SemambaError(f"{where}: no values")
    if isinstance(values, Mapping):
        for label, change in values.items():
            yield label, _nested(change or {}, f"{where}.{label}")
        return
    if "." not in key:
        raise SemambaError(f"{where}: a list of values needs a dotted key, for example model.mixer.expand")
    for value in values:
        yield f"{key.rpartition('.')[2]}={value}", _nested({key: value}, where)


def _nested(changes: Mapping[str, Any], where: str) -> Mapped:
    """`{"a.b": 1, "c": {"d.e": 2}}` as groups in groups."""
    result: Mapped = {}
    for key, value in changes.items():
        group: Any = _nested(value, where) if isinstance(value, Mapping) else value
        for part in reversed(str(key).split(".")):
            if not part:
                raise SemambaError(f"{where}: '{key}' is not a key")
            group = {part: group}
        result = config.merge(result, group)
    return result
