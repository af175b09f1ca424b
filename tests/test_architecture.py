"""The house rules that an import can break: layers, optional libraries, a quick start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "semamba"

# Room -> storey. An import goes to a lower storey, stays in its room, or is one of the arrows below.
STOREYS = {
    **dict.fromkeys(("__main__",), 8),
    **dict.fromkeys(("cli",), 7),
    **dict.fromkeys(("web",), 6),
    **dict.fromkeys(("profiling", "export", "evaluation"), 5),
    **dict.fromkeys(("train", "inference", "metrics", "convert"), 4),
    **dict.fromkeys(("checkpoint", "data", "losses"), 3),
    **dict.fromkeys(("models",), 2),
    **dict.fromkeys(("ops", "spectrum", "perceptual"), 1),
    **dict.fromkeys(("audio", "pcs", "config", "files", "processes", "sessions", "errors"), 0),
}
SIDEWAYS = {
    ("audio", "errors"),
    ("config", "errors"),
    ("pcs", "errors"),
    ("sessions", "errors"),
    ("train", "metrics"),  # validation scores with the measures that the results are reported in
}
WITHOUT_TORCH = ("audio", "pcs", "config", "files", "processes", "sessions", "errors", "metrics")

# Libraries whose import name is not their package's.
IMPORT_NAMES = {"python-multipart": "python_multipart"}


def modules() -> Iterator[tuple[str, list[str]]]:
    """(dotted name, everything it imports) of each module, imports inside functions included."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        imported: list[str] = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: imports are absolute here"
                imported += [f"{node.module}.{alias.name}" for alias in node.names]
        yield name, imported


def optional_libraries() -> set[str]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    names = {re.match(r"[\w.-]+", line)[0] for name, lines in extras.items() if name != "dev" for line in lines}
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names} - {"semamba"}


def room(module: str) -> str | None:
    """The room of a dotted name; None for the package's own front door."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in STOREYS else None


def test_every_module_has_a_storey() -> None:
    rooms = {name.split(".")[1] for name, _ in modules() if "." in name}
    assert rooms <= STOREYS.keys()


def test_arrows_only_go_down() -> None:
    wrong = []
    for name, imported in modules():
        for target in imported:
            here, there = room(name), room(target)
            if not target.startswith("semamba.") or not here or not there or here == there:
                continue
            if STOREYS[there] >= STOREYS[here] and (here, there) not in SIDEWAYS:
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_only_the_top_uses_the_front_door() -> None:
    """`semamba.load` is for users; inside the package only commands may come in through it."""
    for name, imported in modules():
        through = [target for target in imported if re.match(r"semamba(\.load|\.enhance)?$", target)]
        assert not through or name.startswith(("semamba.cli", "semamba.web")), name


def test_ops_imports_nothing_of_the_package_but_itself() -> None:
    for name, imported in modules():
        if room(name) == "ops":
            assert {room(target) for target in imported if target.startswith("semamba")} <= {"ops"}, name


@pytest.mark.parametrize("leaf", WITHOUT_TORCH)
def test_leaves_do_without_torch(leaf: str) -> None:
    for name, imported in modules():
        if room(name) == leaf:
            assert not [target for target in imported if target.split(".")[0] == "torch"], name


def test_an_optional_library_is_imported_in_one_file() -> None:
    homes: dict[str, set[str]] = {}
    for name, imported in modules():
        for target in imported:
            for library in optional_libraries() & set(target.replace("torch.utils.", "").split(".")[:1]):
                homes.setdefault(library, set()).add(name)
    assert not {library: files for library, files in homes.items() if len(files) > 1}


@pytest.mark.parametrize("statement", ["import semamba", "import semamba.cli", "import semamba.audio"])
def test_import_stays_light(statement: str) -> None:
    heavy = ("torch", "pydantic", "scipy", "matplotlib", "av", "pesq")
    script = f"import sys; {statement}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_module_grows_out_of_sight() -> None:
    """Files stay readable from top to bottom."""
    long = {name: lines for name, lines in _lengths() if lines > 400}
    assert not long


def _lengths() -> Iterator[tuple[str, int]]:
    for path in PACKAGE.rglob("*.py"):
        yield str(path.relative_to(PACKAGE)), len(path.read_text(encoding="utf-8").splitlines())
