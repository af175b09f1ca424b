"""Recipes: strict keys, overrides, refusal of test splits, durations, and that those in the folder load."""

from __future__ import annotations

from pathlib import Path

import pytest

from semamba import models
from semamba.errors import SemambaError
from semamba.train.recipe import load_recipe, parse_duration

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))  # those in sub-folders are ablations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("model: {preset: causal-small, channels: 16}\noptimiser: {lr: 5e-4}\n")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    models.build(models.config_from_dict(recipe.model, str(path)))


def test_a_recipe_over_another_says_only_what_differs(path: Path) -> None:
    path.write_text(f"{path.read_text()}notes: measured so\n")
    other = path.with_name("other.yaml")
    other.write_text("base: small.yaml\noptimiser: {kind: muon}\n")
    recipe = load_recipe(other, ["model.channels=8"])
    assert (recipe.name, recipe.notes, recipe.optimiser.kind, recipe.optimiser.lr) == ("other", "", "muon", 5e-4)
    assert models.config_from_dict(recipe.model).channels == 8


def test_defaults_overrides_and_preset(path: Path) -> None:
    recipe = load_recipe(path, ["train.steps=10", "loss.phase=0", "mix.crop_seconds=1"])
    assert (recipe.name, recipe.train.steps, recipe.optimiser.lr) == ("small", 10, 5e-4)
    assert (recipe.loss.phase, recipe.mix.crop_seconds) == (0, 1)
    assert models.config_from_dict(recipe.model).channels == 16


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.step=10", "train.step.*did you mean 'steps'"),
        ("valid.split=test/dns2020_test", "test split must not choose"),
        ("valid.split=''", "valid.split is empty"),
        ("train.batch_size=0", "train.batch_size must be at least 1"),
        ("train.accumulate=3", "train.accumulate must divide"),
        ("train.ema=1", "train.ema"),
        ("train.steps=soon", "train.steps"),
        ("valid.jobs=0", "valid.jobs"),
    ],
)
def test_wrong_values_are_named(path: Path, override: str, message: str) -> None:
    with pytest.raises(SemambaError, match=message):
        load_recipe(path, [override])


def test_a_loss_without_terms_is_refused(path: Path) -> None:
    with pytest.raises(SemambaError, match="every weight in loss is zero"):
        load_recipe(path, [f"loss.{name}=0" for name in ("magnitude", "phase", "complex", "time", "consistency")])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), ("30", 30)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "m", "-5m"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(SemambaError, match="time budget"):
        parse_duration(text)
