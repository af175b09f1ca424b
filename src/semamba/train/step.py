"""One step of training, and the record of everything that trains.

Letters: B batch, n samples. Waves are (B, n) float32 at 16 kHz.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from semamba import losses, models
from semamba.errors import SemambaError
from semamba.models.discriminator import MetricDiscriminator
from semamba.spectrum import Spectrum
from semamba.train.distil import Teacher, distance
from semamba.train.distributed import Ranks
from semamba.train.ema import Ema
from semamba.train.optimiser import Optimiser, adamw, muon
from semamba.train.pesq_labels import PesqLabels, pesq_of
from semamba.train.recipe import DiscriminatorConfig, OptimiserConfig, Recipe
from semamba.train.target import normalise_pair, stretch

SMALLEST = 16  # frames, and bins, that the discriminator needs

Gradients = Sequence[Tensor]
Terms = dict[str, Tensor]
AnyOptimiser = torch.optim.Optimizer | Optimiser


@dataclass
class Critic:
    """The discriminator with what trains it. It is in evaluation mode but for its own half of the step."""

    model: MetricDiscriminator
    optimiser: torch.optim.Optimizer
    labels: PesqLabels


@dataclass
class Training:
    """Everything that changes while training, plus what the step needs. `forward` is the model, perhaps compiled."""

    recipe: Recipe
    device: torch.device
    ranks: Ranks
    model: nn.Module
    forward: Callable[[Tensor], tuple[Tensor, Any]]
    spectrum: Spectrum
    optimiser: AnyOptimiser
    ema: Ema
    critic: Critic | None  # where the loss has a metric term
    teacher: Teacher | None  # where the recipe distils
    one_level: bool  # pairs are brought to RMS 1, see normalise_pair
    map: Callable[..., Iterable[Any]]  # over micro-batches: `map`, or that of a pool of threads; in order either way
    step: int = 0
    elapsed: float = 0.0  # seconds of training, over all resumed parts
    bad_steps: int = 0
    bad_in_a_row: int = 0
    best: float = -math.inf
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation

    def close(self) -> None:
        """End the processes that compute labels."""
        if self.critic is not None:
            self.critic.labels.close()


def start(recipe: Recipe, device: torch.device, ranks: Ranks | None = None) -> Training:
    """A fresh Training: the first weights depend on the seed alone, so they are the same on every rank."""
    if recipe.train.precision == "bf16" and device.type == "cpu":
        raise SemambaError("train.precision=bf16 is for GPUs (on CPUs torch's low-precision convolutions can crash)")
    torch.manual_seed(recipe.train.seed)
    model_config = models.config_from_dict(recipe.model, "model")
    model = models.build(model_config).to(device).train()
    spectrum = Spectrum(model_config.stft).to(device)
    parallel = recipe.train.parallel
    return Training(
        recipe=recipe,
        device=device,
        ranks=ranks or Ranks(device),
        model=model,
        forward=torch.compile(model) if recipe.train.compile else model,
        spectrum=spectrum,
        optimiser=_optimiser(model, recipe.optimiser),
        ema=Ema(model, recipe.train.ema),
        critic=_critic(recipe, spectrum, device) if recipe.loss.metric else None,
        teacher=Teacher(recipe.distil.teacher, device) if recipe.distil.weight else None,
        one_level=model_config.kind == "causal" or model.normalise == "rms",
        map=ThreadPoolExecutor(parallel, "micro-batch").map if parallel > 1 else map,
    )


def _critic(recipe: Recipe, spectrum: Spectrum, device: torch.device) -> Critic:
    cfg, frames = recipe.discriminator, spectrum.frames(round(recipe.mix.crop_seconds * 16000))
    if min(frames, spectrum.config.n_bins) < SMALLEST:
        raise SemambaError(f"mix.crop_seconds: the discriminator needs {SMALLEST} frames, the crop has {frames}")
    model = MetricDiscriminator(cfg.channels, cfg.dropout).to(device).eval()
    return Critic(model, adamw(list(model.parameters()), cfg), PesqLabels(cfg.jobs))


def _optimiser(model: nn.Module, cfg: OptimiserConfig) -> AnyOptimiser:
    return muon(model, cfg) if cfg.kind == "muon" else adamw(list(model.parameters()), cfg)


def train_step(t: Training, noisy: Tensor, clean: Tensor, progress: float) -> Terms:
    """Train on this rank's rows (B, n) of a batch, at `progress` in [0, 1] of the run; returns the terms, detached.

    An update whose terms or gradient are not finite is left out and the step counted; too many in a row are an error.
    """
    recipe, scale = t.recipe, schedule(t.recipe.optimiser, t.step, progress)
    # repeatable after a resume, and dropout differs between ranks
    torch.manual_seed((recipe.train.seed * 1_000_003 + t.step) * t.ranks.world + t.ranks.rank)
    noisy, clean = noisy.to(t.device), clean.to(t.device)
    if t.one_level:
        noisy, clean = normalise_pair(noisy, clean)
    if recipe.target.pcs:
        clean = stretch(clean)

    # The model: make the discriminator say 1, and every other term small.
    log, gradients, enhanced = in_parts(t, noisy, clean)
    good = descend(t, t.model, t.optimiser, recipe.optimiser, scale, gradients, log, "gradient")
    if good:
        t.ema.update(t.model, t.step)

    # The discriminator: predict PESQ, on the oldest batch whose labels are here.
    if t.critic is not None:
        critic, labels, cfg = t.critic, t.critic.labels, recipe.discriminator
        terms = {"labelled": torch.zeros((), device=t.device)}
        if labels.pending and (cfg.wait or t.ranks.all(labels.ready)):
            terms, gradients = judge(t.spectrum, critic.model, *labels.take())
            good &= descend(t, critic.model, critic.optimiser, cfg, scale, gradients, terms, "discriminator_gradient")
        log |= with_pesq(terms)
        if good:
            labels.ask(clean, enhanced)

    count(t, good)
    return log


def in_parts(t: Training, noisy: Tensor, clean: Tensor) -> tuple[Terms, Gradients, Tensor]:
    """Mean terms and gradients over the micro-batches of (B, n), and what the model made of it, (B, n)."""
    parts = t.recipe.train.accumulate
    log: Terms = {}
    total: list[Tensor] = []
    waves: list[Tensor] = []
    pairs = zip(noisy.chunk(parts), clean.chunk(parts), strict=True)
    for terms, gradients, enhanced in t.map(lambda pair: differentiate(t, *pair), pairs):
        log = {name: log.get(name, 0) + value / parts for name, value in terms.items()}
        shares = [gradient / parts for gradient in gradients]
        total = [a + b for a, b in zip(total, shares, strict=True)] if total else shares
        waves.append(enhanced)
    return log, total, torch.cat(waves)


def differentiate(t: Training, noisy: Tensor, clean: Tensor) -> tuple[Terms, Gradients, Tensor]:
    """Detached loss terms, the gradient of each parameter, the enhanced waves; touches nothing that is shared."""
    terms, enhanced = loss_terms(t, noisy, clean)
    own = losses.total(t.recipe.loss, {name: value for name, value in terms.items() if name != "distil"})
    terms = {"loss": own + t.recipe.distil.weight * terms["distil"] if "distil" in terms else own, **terms}
    gradients = torch.autograd.grad(terms["loss"], list(t.model.parameters()), materialize_grads=True)
    return {name: value.detach() for name, value in terms.items()}, gradients, enhanced.detach()


def loss_terms(t: Training, noisy: Tensor, clean: Tensor) -> tuple[Terms, Tensor]:
    """Analyse, enhance, synthesise, compare; in float32 all but the model."""
    clean_spec, noisy_spec = t.spectrum.analyse(clean), t.spectrum.analyse(noisy)
    with torch.autocast(t.device.type, torch.bfloat16, enabled=t.recipe.train.precision == "bf16"):
        enhanced_spec = t.forward(noisy_spec)[0].float()
    enhanced = t.spectrum.synthesise(enhanced_spec, clean.shape[-1])
    critic = t.critic.model if t.critic is not None else None
    terms = losses.compute(t.recipe.loss, t.spectrum, enhanced_spec, clean_spec, enhanced, clean, critic)
    if t.teacher is not None:
        taught = t.teacher.teach(noisy, clean)
        terms["distil"] = distance(t.recipe.loss, t.spectrum, enhanced_spec, enhanced, taught)
    return terms, enhanced


def judge(
    spectrum: Spectrum, model: MetricDiscriminator, clean: Tensor, enhanced: Tensor, labels: Tensor
) -> tuple[Terms, Gradients]:
    """The discriminator's loss on a batch, its gradient, the mean label, and the share of items that have one."""
    model.train()
    loss = losses.discriminator_loss(model, spectrum, clean, enhanced, labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    model.eval()
    labelled = (~labels.isnan()).float().mean()
    return {"discriminator": loss.detach(), "label": labels.nan_to_num().mean(), "labelled": labelled}, gradients


def with_pesq(terms: Terms) -> Terms:
    """The sum of labels as the mean PESQ of the items that have one; left out where none has."""
    terms, label = dict(terms), terms.get("label")
    terms.pop("label", None)
    return terms if label is None or not terms["labelled"] else {**terms, "pesq": pesq_of(label / terms["labelled"])}


def descend(
    t: Training,
    model: nn.Module,
    optimiser: AnyOptimiser,
    cfg: OptimiserConfig | DiscriminatorConfig,
    scale: float,
    gradients: Gradients,
    terms: Terms,
    name: str,
) -> bool:
    """Average terms and gradients over the ranks, clip, update `model`; the gradient's norm becomes terms[name].

    False, and the weights as they were, where any of it is not finite.
    """
    t.ranks.average([*gradients, *terms.values(), *statistics(model)])
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    terms[name] = nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
    good = bool(torch.stack(list(terms.values())).isfinite().all())
    if good:
        for group in optimiser.param_groups:
            group["lr"] = cfg.lr * scale
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return good


def statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances of batch normalisation, which belong to no gradient."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]


def schedule(cfg: OptimiserConfig, step: int, progress: float) -> float:
    """Factor of the learning rate: linear warm-up by step, then the cosine by progress or the decay per epoch.

    A function of its arguments alone, so that a resumed run agrees.
    """
    warmup = min(1.0, (step + 1) / max(cfg.warmup, 1))
    if cfg.schedule == "exponential":
        return warmup * cfg.decay ** (step // cfg.epoch)
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return warmup * (cfg.floor + (1 - cfg.floor) * cosine)


def count(t: Training, good: bool) -> None:
    """The step is over. One that was not finite leaves only its count behind; SemambaError when it was one too many."""
    t.step += 1
    if good:
        t.bad_in_a_row = 0
        return
    t.bad_steps += 1
    t.bad_in_a_row += 1
    for own, averaged in zip(statistics(t.model), statistics(t.ema.model), strict=True):
        own.copy_(averaged)  # a forward pass of NaN would stay in them for good
    limit = t.recipe.optimiser.max_bad_steps
    if t.bad_in_a_row >= limit:
        raise SemambaError(
            f"loss or gradient was not finite for {limit} steps in a row, until step {t.step - 1}; lower optimiser.lr "
            "or optimiser.clip and resume from the last checkpoint, or look for broken audio in the manifest"
        )
