"""Models on disk: round trip, storage type, atomic writes, clear errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semamba import checkpoint, models
from semamba.errors import SemambaError
from semamba.models.causal import CausalConfig

TINY = CausalConfig(channels=8, sub_bands=8, d_model=8, blocks=1, heads=2)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.build(TINY).eval()


def test_round_trip(tmp_path: Path, model: torch.nn.Module) -> None:
    checkpoint.save(tmp_path / "m", model, {"note": "hello"})
    loaded = checkpoint.load(tmp_path / "m")
    assert loaded.config == TINY and not loaded.training
    assert checkpoint.describe(tmp_path / "m")["meta"] == {"note": "hello"}
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]


def test_half_storage_is_smaller_and_close(tmp_path: Path, model: torch.nn.Module) -> None:
    checkpoint.save(tmp_path / "full", model, {})
    checkpoint.save(tmp_path / "half", model, {}, half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.75 * sizes[1]
    spec = torch.randn(1, 6, 257, 2)
    with torch.no_grad():
        exact, close = model(spec)[0], checkpoint.load(tmp_path / "half")(spec)[0]
    assert close.dtype == torch.float32
    torch.testing.assert_close(close, exact, atol=2e-2, rtol=2e-2)


def test_a_run_folder_gives_its_best_weights(tmp_path: Path, model: torch.nn.Module) -> None:
    checkpoint.save(tmp_path / "run" / "best", model, {})
    assert checkpoint.locate(tmp_path / "run") == tmp_path / "run" / "best"


def test_a_path_is_never_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SemambaError, match="neither a shipped model nor a folder"):
        checkpoint.locate("./causal-small")
    checkpoint.save("causal-small", model, {})
    assert checkpoint.locate("causal-small") == checkpoint.WEIGHTS / "causal-small"
    for path in ("./causal-small", "causal-small/", Path("causal-small")):
        assert checkpoint.locate(path) == Path("causal-small")


def test_unknown_name_lists_what_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module
) -> None:
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    checkpoint.save(tmp_path / "causal-small", model, {})
    assert checkpoint.shipped() == ["causal-small"]
    checkpoint.load("causal-small")
    with pytest.raises(SemambaError, match="did you mean 'causal-small'"):
        checkpoint.load("causal-smal")
    with pytest.raises(SemambaError, match="shipped models: causal-small"):
        checkpoint.load("nothing-like-it")


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_every_shipped_model_is_its_preset_and_has_a_card(name: str) -> None:
    assert checkpoint.load(name).config == models.config_from_dict({"preset": name})
    card = (checkpoint.locate(name) / "card.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n") and "## Training data" in card


def test_larger_models_take_weights_where_they_may(tmp_path: Path) -> None:
    sizes = CausalConfig(channels=8, sub_bands=8, d_model=8, blocks=1, heads=2)
    small, large = models.build(sizes), models.build(replace(sizes, blocks=2, channels=12))
    checkpoint.save(tmp_path, small, {})
    with pytest.raises(SemambaError, match="has shape|lacks"):
        checkpoint.load_weights(large, tmp_path)
    checkpoint.load_weights(large, tmp_path, larger=True)
    spectrum = torch.randn(1, 9, 257, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(large(spectrum)[0], small(spectrum)[0], atol=1e-5)
    checkpoint.save(tmp_path / "large", large, {})
    with pytest.raises(SemambaError, match=f"{tmp_path / 'large'}: .*larger model"):
        checkpoint.load_weights(small, tmp_path / "large", larger=True)


def test_damaged_and_foreign_files_are_named(tmp_path: Path, model: torch.nn.Module) -> None:
    checkpoint.save(tmp_path, model, {})
    other = models.build(CausalConfig(channels=8, sub_bands=8, d_model=8, blocks=2, heads=2))
    with pytest.raises(SemambaError, match="lacks .*blocks.1"):
        checkpoint.load_weights(other, tmp_path)
    wider = models.build(CausalConfig(channels=16, sub_bands=8, d_model=8, blocks=1, heads=2))
    with pytest.raises(SemambaError, match="has shape"):
        checkpoint.load_weights(wider, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SemambaError, match="damaged"):
        checkpoint.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SemambaError, match="config.json"):
        checkpoint.load(tmp_path)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoint.write_atomic(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
