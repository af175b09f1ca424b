"""Models on disk: a folder with model.safetensors and config.json; shipped ones lie in semamba/weights.

config.json holds {"model": the config that rebuilds the model, "meta": anything about its making}. Nothing is unpickled
and nothing is downloaded. Files are written under a temporary name and renamed: a reader never meets half a file.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semamba import config, models
from semamba.errors import SemambaError
from semamba.files import write_atomic
from semamba.models.causal import CausalModel
from semamba.models.growth import grow

__all__ = ["describe", "load", "load_weights", "locate", "save", "shipped", "write_atomic", "write_json"]

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_MODEL = "causal-small"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def shipped() -> list[str]:
    """Names of the models whose weights come with the package."""
    if not WEIGHTS.is_dir():
        return []
    return sorted(folder.name for folder in WEIGHTS.iterdir() if (folder / WEIGHTS_FILE).is_file())


def save(directory: str | Path, model: nn.Module, meta: dict[str, Any], half: bool = False) -> None:
    """Write weights and config of `model`; with `half`, matrices are stored as float16 (see `_storable`)."""
    from safetensors.torch import save as serialise

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: _storable(name, value, half) for name, value in model.state_dict().items()}
    described = {"model": config.to_dict(model.config), "meta": meta}
    write_atomic(directory / WEIGHTS_FILE, lambda temporary: temporary.write_bytes(serialise(tensors)))
    write_json(directory / CONFIG_FILE, described)


def load(name_or_path: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The model of a shipped name, of a folder written by `save`, or of a training run (its best), in eval mode.

    Raises SemambaError when there is no such model or its files do not fit together.
    """
    folder = locate(name_or_path)
    model = models.build(models.config_from_dict(describe(folder)["model"]))
    load_weights(model, folder)
    return model.to(device).eval()


def locate(name_or_path: str | Path) -> Path:
    """The folder that holds the weights of a shipped name or path. Raises SemambaError naming what exists.

    A name is a str without any separator: `./causal-small` and `Path("causal-small")` are folders here.
    """
    names = shipped()
    if isinstance(name_or_path, str) and name_or_path in names:
        return WEIGHTS / name_or_path
    for folder in (Path(name_or_path), Path(name_or_path) / "best"):
        if (folder / WEIGHTS_FILE).is_file():
            return folder
    if Path(name_or_path).is_dir():
        raise SemambaError(f"{name_or_path}: no {WEIGHTS_FILE} in this folder")
    close = difflib.get_close_matches(str(name_or_path), names, n=1)
    advice = f"did you mean '{close[0]}'?" if close else f"shipped models: {', '.join(names) or 'none'}"
    raise SemambaError(f"model '{name_or_path}' is neither a shipped model nor a folder with weights; {advice}")


def describe(name_or_path: str | Path) -> dict[str, Any]:
    """Content of config.json: {"model": ..., "meta": ...}."""
    path = locate(name_or_path) / CONFIG_FILE
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SemambaError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(described, dict) or not isinstance(described.get("model"), dict):
        raise SemambaError(f"{path}: has no 'model' section, so the model cannot be rebuilt")
    return {"model": described["model"], "meta": described.get("meta") or {}}


def load_weights(model: nn.Module, name_or_path: str | Path, larger: bool = False) -> None:
    """Copy stored weights into `model`, whatever their storage type; names and shapes must match exactly.

    With `larger` a causal model may have more channels, heads and blocks: see `models.growth`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = locate(name_or_path) / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SemambaError(f"{path}: damaged or not a safetensors file ({error})") from None
    if larger and isinstance(model, CausalModel):
        tensors = _grown(model, name_or_path, tensors)
    own = model.state_dict()
    for problem, names in (("lacks", own.keys() - tensors.keys()), ("has unknown", tensors.keys() - own.keys())):
        if names:
            raise SemambaError(f"{path}: {problem} {len(names)} tensors, first '{min(names)}'; not of this model")
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            stored, needed = tuple(tensors[name].shape), tuple(value.shape)
            raise SemambaError(f"{path}: '{name}' has shape {stored}, the model needs {needed}")
    model.load_state_dict(tensors)


def _grown(model: CausalModel, name_or_path: str | Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    described = describe(name_or_path)["model"]
    if described.get("kind") != "causal":
        return given
    try:
        return grow(model, models.config_from_dict(described), given)
    except SemambaError as error:
        raise SemambaError(f"{locate(name_or_path)}: {error}") from None


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _storable(name: str, value: Tensor, half: bool) -> Tensor:
    """Contiguous CPU copy; vectors and the decay rates A_log stay in float32, as they are few and sensitive."""
    value = value.detach().cpu().contiguous()
    matrix = value.is_floating_point() and value.dim() > 1 and not name.endswith("A_log")
    return value.half() if half and matrix else value
