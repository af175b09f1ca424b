"""One step of training, and the record of everything that trains.

Letters: B batch, n samples. Waves are (B, n) float32 at 16 kHz.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from semamba import losses, models
from semamba.errors import SemambaError
from semamba.spectrum import Spectrum
from semamba.train.ema import Ema
from semamba.train.recipe import OptimiserConfig, Recipe


@dataclass
class Training:
    """Everything that changes while training, plus what the step needs. `forward` is the model, perhaps compiled."""

    recipe: Recipe
    device: torch.device
    model: nn.Module
    forward: Callable[[Tensor], tuple[Tensor, Any]]
    spectrum: Spectrum
    optimiser: torch.optim.Optimizer
    ema: Ema
    one_level: bool  # pairs are brought to RMS 1, see normalise_pair
    map: Callable[..., Iterable[Any]]  # over micro-batches: `map`, or that of a pool of threads; in order either way
    step: int = 0
    elapsed: float = 0.0  # seconds of training, over all resumed parts
    bad_steps: int = 0
    bad_in_a_row: int = 0
    best: float = -math.inf
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation


def start(recipe: Recipe, device: torch.device) -> Training:
    """A fresh Training: the model's first weights depend on the seed alone."""
    torch.manual_seed(recipe.train.seed)
    model_config = models.config_from_dict(recipe.model, "model")
    model = models.build(model_config).to(device).train()
    cfg = recipe.optimiser
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=cfg.lr, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=True
    )
    parallel = recipe.train.parallel
    return Training(
        recipe=recipe,
        device=device,
        model=model,
        forward=torch.compile(model) if recipe.train.compile else model,
        spectrum=Spectrum(model_config.stft).to(device),
        optimiser=optimiser,
        ema=Ema(model, recipe.train.ema),
        one_level=model_config.kind == "causal" or model.normalise == "rms",
        map=ThreadPoolExecutor(parallel, "micro-batch").map if parallel > 1 else map,
    )


def train_step(t: Training, noisy: Tensor, clean: Tensor, progress: float) -> dict[str, Tensor]:
    """Train on a batch of pairs (B, n) at `progress` in [0, 1] of the run; returns the loss terms, detached.

    A step whose loss or gradient is not finite leaves the weights alone and is counted; too many in a row are an error.
    """
    cfg, count = t.recipe.optimiser, t.recipe.train.accumulate
    rate = learning_rate(cfg, t.step, progress)
    for group in t.optimiser.param_groups:
        group["lr"] = rate
    torch.manual_seed(t.recipe.train.seed * 1_000_003 + t.step)  # makes dropout repeatable after a resume
    t.optimiser.zero_grad(set_to_none=True)
    noisy, clean = noisy.to(t.device), clean.to(t.device)
    if t.one_level:
        noisy, clean = normalise_pair(noisy, clean)
    log: dict[str, Tensor] = {}
    parts = zip(noisy.chunk(count), clean.chunk(count), strict=True)
    for terms, gradients in t.map(lambda part: differentiate(t, *part), parts):
        for name, value in terms.items():
            log[name] = log.get(name, 0) + value / count
        for parameter, gradient in zip(t.model.parameters(), gradients, strict=True):
            share = gradient / count
            parameter.grad = share if parameter.grad is None else parameter.grad + share
    log["gradient"] = nn.utils.clip_grad_norm_(t.model.parameters(), cfg.clip)
    if torch.isfinite(log["gradient"]) and torch.isfinite(log["loss"]):
        t.optimiser.step()
        t.ema.update(t.model, t.step)
        t.bad_in_a_row = 0
    else:
        count_bad_step(t)
    t.step += 1
    return log


def differentiate(t: Training, noisy: Tensor, clean: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Detached loss terms of a micro-batch and the gradient of each parameter; touches nothing that is shared."""
    terms = loss_terms(t, noisy, clean)
    terms = {"loss": losses.total(t.recipe.loss, terms), **terms}
    gradients = torch.autograd.grad(terms["loss"], list(t.model.parameters()), materialize_grads=True)
    return {name: value.detach() for name, value in terms.items()}, gradients


def loss_terms(t: Training, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Analyse, enhance, synthesise, compare."""
    clean_spec = t.spectrum.analyse(clean)
    enhanced_spec = t.forward(t.spectrum.analyse(noisy))[0]
    enhanced = t.spectrum.synthesise(enhanced_spec, clean.shape[-1])
    return losses.compute(t.recipe.loss, t.spectrum, enhanced_spec, clean_spec, enhanced, clean)


def normalise_pair(noisy: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Both waves (B, n), scaled by one factor per item so that the noisy one has RMS 1 (silent items stay as they are).

    The mixer draws levels over 35 dB. Without this the waveform and spectrum terms would train on the loud items only.
    Models with utterance normalisation get exactly it, and the causal family does not depend on level. Any other model
    must hear the levels it will meet, so its pairs stay as they were mixed.
    """
    rms = noisy.square().mean(-1, keepdim=True).sqrt()
    scale = torch.where(rms > 1e-5, 1 / rms.clamp(min=1e-5), torch.ones_like(rms))
    return noisy * scale, clean * scale


def learning_rate(cfg: OptimiserConfig, step: int, progress: float) -> float:
    """Linear warm-up by step, cosine by progress; a function of its arguments alone, so that a resumed run agrees."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return cfg.lr * min(1.0, (step + 1) / max(cfg.warmup, 1)) * (cfg.floor + (1 - cfg.floor) * cosine)


def count_bad_step(t: Training) -> None:
    t.bad_steps += 1
    t.bad_in_a_row += 1
    limit = t.recipe.optimiser.max_bad_steps
    if t.bad_in_a_row >= limit:
        raise SemambaError(
            f"loss or gradient was not finite for {limit} steps in a row, until step {t.step}; lower optimiser.lr or "
            "optimiser.clip and resume from the last checkpoint, or look for broken audio in the manifest"
        )
