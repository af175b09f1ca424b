"""What a training recipe (a YAML file in recipes/) may say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from semamba import config
from semamba.data.mixing import MixConfig
from semamba.errors import SemambaError
from semamba.losses import LossConfig


@dataclass(frozen=True)
class OptimiserConfig:
    """A linear warm-up, then a cosine to `floor` times `lr` or, as the paper has it, a decay per epoch."""

    kind: Literal["adamw", "muon"] = "adamw"  # see `optimiser`; the paper's is AdamW
    schedule: Literal["cosine", "exponential"] = "cosine"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup: int = 500  # steps
    floor: float = 0.01  # of the cosine
    decay: float = 0.99  # of the exponential schedule, after each epoch
    epoch: int = 2900  # steps in an epoch; the default is VoiceBank-DEMAND at batch 4
    clip: float = 5.0  # largest gradient norm
    max_bad_steps: int = 50  # non-finite steps in a row before the run gives up


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The net that learns to predict PESQ; it is trained where `loss.metric` is not zero, on the model's schedule."""

    channels: int = 16
    dropout: float = 0.3
    lr: float = 5e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    clip: float = 5.0
    jobs: int = 2  # processes that compute PESQ, on each machine process of the run
    wait: bool = False  # for labels that are late: slower, but the same run every time


@dataclass(frozen=True)
class TargetConfig:
    """What the model is trained towards: the clean signal, or what contrast stretching makes of it, at its level."""

    pcs: bool = False


@dataclass(frozen=True)
class DistilConfig:
    """A trained model whose output is a second target. Weight 0 asks no teacher."""

    teacher: str = ""  # a shipped name or a folder
    weight: float = 0.0  # of the same loss towards the teacher's wave


@dataclass(frozen=True)
class TrainConfig:
    """`steps: auto` lets the schedule follow the time budget instead of a step count."""

    steps: int | Literal["auto"] = "auto"
    batch_size: int = 8  # items per optimiser step
    accumulate: int = 1  # micro-batches a step is split into
    parallel: int = 1  # micro-batches at a time, each on its own core; on a CPU faster than one after another on all
    validate_every: int = 1000  # steps; 0 leaves only the last validation
    validate_minutes: float = 0.0  # also after this long; 0 is never
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    seed: int = 0
    ema: float = 0.999
    threads: int = 0  # of torch for one micro-batch; 0 shares the cores among the parallel ones
    workers: int = 1  # processes that mix training pairs on the host
    window_mb: int = 2048  # audio of a sharded corpus in memory at a time
    mix_on: Literal["auto", "host", "device"] = "auto"  # auto is the device where that is a GPU
    compile: bool = False
    precision: Literal["float32", "bf16"] = "float32"  # of the model; spectra and losses stay in float32
    device: str = "auto"


@dataclass(frozen=True)
class ValidConfig:
    """Recorded pairs of `split` (never a test split) and seeded mixtures, enhanced with the averaged weights."""

    split: str = "valid"
    mixtures: int = 0  # of the split's speech and noise, beside its recorded pairs
    limit: int = 0  # use only the first pairs; 0 is all
    jobs: int = 2
    score: Literal["pesq", "stoi", "si_sdr"] = "pesq"  # the best weights are the ones with the highest


@dataclass(frozen=True)
class Recipe:
    """`model` is {preset: name, changed keys ...} or a whole model config."""

    name: str
    model: dict[str, Any]
    notes: str = ""  # for the model card: what a reader of the scores should know
    init: str = ""  # weights to begin with, a shipped name or a folder; a causal model may be larger than they are
    mix: MixConfig = field(default_factory=MixConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    valid: ValidConfig = field(default_factory=ValidConfig)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe strictly, over its `base` if it has one. Raises SemambaError naming the wrong key or value."""
    mapping = config.apply_overrides(load_mapping(path), overrides)
    if "name" not in mapping:
        mapping = {"name": Path(path).stem, **mapping}
    if "model" not in mapping:
        raise SemambaError(f"{path}: lacks the key 'model', for example model: {{preset: causal-small}}")
    recipe = config.parse(Recipe, mapping, where=str(path))
    check(recipe, str(path))
    return recipe


def load_mapping(path: str | Path) -> dict[str, Any]:
    """A recipe as it is written, with what its `base` says; a base keeps its name and its notes to itself."""
    return config.load_layers(path, own=("name", "notes"))


def check(recipe: Recipe, where: str) -> None:
    """Refuse values that would only fail late, and validation on test material."""
    train = recipe.train
    counts = ("batch_size", "accumulate", "parallel", "log_every", "window_mb")
    positive = {f"train.{key}": getattr(train, key) for key in counts}
    positive |= {"valid.jobs": recipe.valid.jobs, "discriminator.jobs": recipe.discriminator.jobs}
    positive["optimiser.epoch"] = recipe.optimiser.epoch
    if isinstance(train.steps, int):
        positive["train.steps"] = train.steps
    for key, value in positive.items():
        if value < 1:
            raise SemambaError(f"{where}: {key} must be at least 1 (got {value})")
    if train.batch_size % train.accumulate:
        raise SemambaError(f"{where}: train.accumulate must divide train.batch_size ({train.batch_size})")
    if not 0 <= train.ema < 1:
        raise SemambaError(f"{where}: train.ema must lie in [0, 1) (got {train.ema})")
    distil = recipe.distil
    if distil.weight < 0 or bool(distil.weight) != bool(distil.teacher):
        raise SemambaError(f"{where}: distil needs both a teacher and a weight above 0, or neither")
    if distil.weight and recipe.target.pcs:
        raise SemambaError(f"{where}: distil and target.pcs are two different targets; choose one of them")
    if not any(recipe.loss.weights().values()):
        raise SemambaError(f"{where}: every weight in loss is zero")
    if not recipe.valid.split.strip("/ "):
        raise SemambaError(f"{where}: valid.split is empty; name the split whose pairs choose the best weights")
    if recipe.valid.split.strip().lower().lstrip("/").startswith("test"):
        raise SemambaError(
            f"{where}: valid.split is '{recipe.valid.split}': weights are chosen on it, and a test split must not "
            "choose them; name a validation split"
        )


def parse_duration(text: str) -> float:
    """Seconds of '90m', '2h', '1h30m', '45s' or a plain number of seconds."""
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text.strip().lower())
    try:
        if match is None or not any(match.groups()):
            raise ValueError
        hours, minutes, seconds = (float(part) if part else 0.0 for part in match.groups())
    except ValueError:
        raise SemambaError(f"time budget '{text}': expected something like 90m, 2h, 1h30m or 45s") from None
    return hours * 3600 + minutes * 60 + seconds
