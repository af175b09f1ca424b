"""Strict configuration: what is accepted, and that every refusal names the key, the source and the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semamba.config import apply_overrides, load_layers, load_yaml, merge, parse, to_dict
from semamba.errors import SemambaError


@dataclass(frozen=True)
class Optimiser:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    steps: int = 10
    kind: Literal["adam", "sgd"] = "adam"
    nesterov: bool = False


@dataclass(frozen=True)
class Recipe:
    name: str
    optimiser: Optimiser = field(default_factory=Optimiser)
    model: dict[str, Any] = field(default_factory=dict)


def test_defaults_and_nested_groups() -> None:
    recipe = parse(Recipe, {"name": "a", "optimiser": {"steps": 3, "betas": [0.8, 0.9]}, "model": {"any": {"key": 1}}})
    assert recipe == Recipe("a", Optimiser(steps=3, betas=(0.8, 0.9)), {"any": {"key": 1}})


@pytest.mark.parametrize(("text", "value"), [("5e-4", 5e-4), ("1e3", 1000.0), ("2", 2.0), (2, 2.0)])
def test_text_that_spells_a_number(text: object, value: float) -> None:
    assert parse(Optimiser, {"lr": text}).lr == value


@given(
    st.builds(
        Optimiser,
        lr=st.floats(allow_nan=False, allow_infinity=False),
        betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        steps=st.integers(),
        nesterov=st.booleans(),
    )
)
def test_storing_as_json_and_parsing_gives_the_same(optimiser: Optimiser) -> None:
    recipe = Recipe("a", optimiser)
    assert parse(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "a", "optimizer": {}}, "unknown key 'optimizer'; did you mean 'optimiser'?"),
        ({"name": "a", "optimiser": {"learning": 1}}, "unknown key 'optimiser.learning'; known keys: lr, betas"),
        ({"name": "a", "optimiser": {"step": 1}}, "unknown key 'optimiser.step'; did you mean 'steps'?"),
        ({"name": "a", 3: 1}, "unknown key '3'"),
        ({}, "name: Field required"),
        ({"name": "a", "optimiser": {"lr": "fast"}}, "optimiser.lr: .*'fast'"),
        ({"name": "a", "optimiser": {"steps": 1.5}}, "optimiser.steps: .*1.5"),
        ({"name": "a", "optimiser": {"kind": "adamw"}}, "optimiser.kind: .*'adam' or 'sgd'.*'adamw'"),
        ({"name": "a", "optimiser": {"betas": [1, 2, 3]}}, "optimiser.betas: "),
        ({"name": "a", "optimiser": None}, "optimiser: "),
        ({"name": "a", "optimiser": 5}, "optimiser: "),
    ],
)
def test_refusals_name_the_key_and_the_file(mapping: dict[Any, Any], message: str) -> None:
    with pytest.raises(SemambaError, match=f"^recipe.yaml: {message}") as caught:
        parse(Recipe, mapping, where="recipe.yaml")
    assert "\n" not in str(caught.value)


def test_overrides_are_read_as_yaml_and_leave_the_original_alone() -> None:
    base = {"optimiser": {"lr": 1}, "name": "a"}
    changed = apply_overrides(base, ["optimiser.lr=5e-4", "optimiser.betas=[0.8, 0.9]", "new.group.key=true", "name="])
    assert changed == {
        "optimiser": {"lr": "5e-4", "betas": [0.8, 0.9]},
        "new": {"group": {"key": True}},
        "name": "",
    }
    assert base == {"optimiser": {"lr": 1}, "name": "a"}
    assert parse(Optimiser, changed["optimiser"]) == Optimiser(lr=5e-4, betas=(0.8, 0.9))
    assert apply_overrides({}, ["filter=a=b"]) == {"filter": "a=b"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "expected key=value"),
        ("=3", "expected key=value"),
        ("name.x=3", "'name' holds a value"),
        ("name=[1,", "is not valid YAML"),
    ],
)
def test_overrides_that_make_no_sense(override: str, message: str) -> None:
    with pytest.raises(SemambaError, match=message) as caught:
        apply_overrides({"name": "a"}, [override])
    assert f"'{override}'" in str(caught.value) and "\n" not in str(caught.value)


def test_merging_goes_group_by_group() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merge(base, {"a": {"c": {"d": 4, "f": 5}}, "e": {"g": 6}}) == {
        "a": {"b": 1, "c": {"d": 4, "f": 5}},
        "e": {"g": 6},
    }
    assert base["a"] == {"b": 1, "c": {"d": 2}}


def test_patterns_of_the_changes_come_before_those_of_the_base() -> None:
    merged = merge({"weights": {"*water*": 0.3, "*rain*": 0.3}}, {"weights": {"*waterfall*": 1}})
    assert list(merged["weights"]) == ["*waterfall*", "*water*", "*rain*"]


def test_yaml_files(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("name: café\noptimiser: {lr: 5e-4}\n", encoding="utf-8")
    assert load_yaml(good) == {"name": "café", "optimiser": {"lr": "5e-4"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"a: [1", "not valid YAML"),
        (b"- 1\n- 2\n", "expected a mapping of keys to values, got list"),
        (b"", "expected a mapping of keys to values, got NoneType"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_yaml_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SemambaError, match=message) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_laid_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/c.yaml").write_text("name: c\na: {b: 1, c: 2}\nd: 3\n")
    (tmp_path / "b.yaml").write_text("base: lower/c.yaml\nname: b\na: {c: 4}\ne: 5\n")
    (tmp_path / "a.yaml").write_text("base: b.yaml\na: {b: 6}\n")
    assert load_layers(tmp_path / "a.yaml") == {"name": "b", "a": {"b": 6, "c": 4}, "d": 3, "e": 5}
    assert load_layers(tmp_path / "a.yaml", own=["name"]) == {"a": {"b": 6, "c": 4}, "d": 3, "e": 5}
    assert load_layers(tmp_path / "b.yaml", own=["name"])["name"] == "b"


@pytest.mark.parametrize(
    ("base", "message"),
    [("gone.yaml", "gone.yaml: no such file"), ("a.yaml", "leads back"), ("[1]", "base must name a file")],
)
def test_a_base_that_cannot_be_used(tmp_path: Path, base: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(f"base: {base}\n")
    with pytest.raises(SemambaError, match=message):
        load_layers(tmp_path / "a.yaml")


def test_a_folder_is_not_a_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="cannot be read"):
        load_yaml(tmp_path)
