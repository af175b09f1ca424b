"""The state of a run on disk: enough to go on after any kill as if nothing had happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semamba import checkpoint
from semamba.errors import SemambaError
from semamba.train.step import AnyOptimiser, Critic, Training

STATE_FILE = "state.pt"
COUNTERS = ("step", "elapsed", "bad_steps", "bad_in_a_row", "best", "scores")


@dataclass(frozen=True)
class RunFolder:
    """Files of one run: state.pt (to resume), last/ and best/ (averaged weights as models), log.jsonl, run.json."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / STATE_FILE

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def description(self) -> Path:
        return self.path / "run.json"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def last(self) -> Path:
        return self.path / "last"


def save_state(t: Training, path: Path) -> None:
    """Write everything that trains in one atomic file: rank 0 writes, all ranks must call.

    Batches that wait for their labels are kept as waves, of all ranks; the labels are computed again after a resume.
    """
    content = {
        "model": t.model.state_dict(),
        "ema": t.ema.model.state_dict(),
        "optimiser": t.optimiser.state_dict(),
        "counters": {name: getattr(t, name) for name in COUNTERS},
    }
    if t.critic is not None:
        pending = [(t.ranks.gather(p.clean), t.ranks.gather(p.enhanced)) for p in t.critic.labels.pending]
        content["discriminator"] = {
            "model": t.critic.model.state_dict(),
            "optimiser": t.critic.optimiser.state_dict(),
            "pending": pending,
        }
    if t.ranks.first:
        checkpoint.write_atomic(path, lambda temporary: torch.save(content, temporary))


def load_state(t: Training, path: Path) -> None:
    """Put a saved state into `t`. Raises SemambaError when the file is broken or belongs to another model."""
    content = _read(path)
    if t.critic is not None and "discriminator" not in content:
        raise SemambaError(f"{path}: has no discriminator; set loss.metric=0, or start from its weights with --init")
    try:
        t.model.load_state_dict(content["model"])
        t.ema.model.load_state_dict(content["ema"])
        _load_optimiser(t.optimiser, content["optimiser"])
        if t.critic is not None:
            _load_critic(t, t.critic, content["discriminator"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SemambaError(f"{path}: does not fit this recipe's model ({reason}); use another --out") from None
    for name in COUNTERS:
        setattr(t, name, content["counters"][name])


def _load_optimiser(optimiser: AnyOptimiser, content: dict[str, Any]) -> None:
    """Moments as they were saved, settings as the recipe has them now."""
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
    optimiser.load_state_dict(content)
    for group, now in zip(optimiser.param_groups, settings, strict=True):
        group.update(now)


def _load_critic(t: Training, critic: Critic, content: dict[str, Any]) -> None:
    critic.model.load_state_dict(content["model"])
    _load_optimiser(critic.optimiser, content["optimiser"])
    for pair in content["pending"]:
        critic.labels.ask(*(t.ranks.own(wave).to(t.device) for wave in pair))


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SemambaError(f"{path}: no such file to resume from") from None
    except Exception as error:  # torch.load raises many kinds on a damaged file
        reason = " ".join(str(error).split())[:200]
        raise SemambaError(f"{path}: not a readable training state ({reason})") from None


def save_model(t: Training, folder: Path, meta: dict[str, Any]) -> None:
    """The averaged weights as a model that `semamba.load` takes."""
    checkpoint.save(folder, t.ema.model, {"step": t.step, "scores": t.scores, **meta})
