"""Rows of benchmarks/gpu.py: training steps, the time of an epoch, and the mixing of pairs.

Steps are those of `semamba train`. PESQ labels are a stand-in, a constant that is there at once: the real ones come
from other processes and the step never waits for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import usual  # beside this file
from gpu_table import RATE, WRONG, Line, Setting, attempt
from torch import Tensor

from semamba.data.bank import SpeechBank, Track
from semamba.data.device import DeviceMixer
from semamba.data.mixing import MixConfig, Mixer
from semamba.train import step as steps
from semamba.train.ema import Ema
from semamba.train.recipe import load_recipe
from semamba.train.step import Training, train_step

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
EPOCH = 11_572  # crops: VoiceBank-DEMAND
CROP = 2.0  # seconds
TINY = (
    *("model.channels=4", "model.dense_depth=1", "model.blocks=1", "model.mixer.expand=1", "model.mixer.d_state=2"),
    *("discriminator.channels=2",),
)


Change = Callable[[Training], Training]


class StandIn:
    """In place of `PesqLabels`."""

    def __init__(self, jobs: int) -> None:
        self.pending: deque[tuple[Tensor, Tensor]] = deque()

    @property
    def ready(self) -> bool:
        return bool(self.pending)

    def ask(self, clean: Tensor, enhanced: Tensor) -> None:
        self.pending.append((clean, enhanced))

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        clean, enhanced = self.pending.popleft()
        return clean, enhanced, clean.new_full(clean.shape[:1], 0.5)

    def close(self) -> None:
        self.pending.clear()


def open_training(setting: Setting, recipe: str, *changes: str) -> Training:
    device = f"train.device={setting.device.type}"
    loaded = load_recipe(RECIPES / recipe, ["train.accumulate=1", "train.parallel=1", device, *changes])
    with patch.object(steps, "PesqLabels", StandIn):
        return steps.start(loaded, setting.device)


def run_usual(t: Training) -> Training:
    """The same weights in the usual network."""
    assert t.critic is not None
    config, cfg = t.model.config, t.recipe.discriminator
    model = usual.Advanced(config).to(t.device).train()
    judge = usual.Discriminator(cfg.channels, cfg.dropout).to(t.device).eval()
    for new, old in ((model, t.model), (judge, t.critic.model)):
        new.load_state_dict(old.state_dict())
    t.model = t.forward = model
    t.optimiser, t.ema = _like(t.optimiser, model), Ema(model, t.recipe.train.ema)
    t.critic.optimiser, t.critic.model = _like(t.critic.optimiser, judge), judge  # type: ignore[assignment]
    return t


def _like(optimiser: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
    kept = {name: optimiser.defaults[name] for name in ("lr", "betas", "weight_decay", "fused")}
    return torch.optim.AdamW(model.parameters(), **kept)


def noise_pair(setting: Setting, crops: int) -> tuple[Tensor, Tensor]:
    samples = round(setting.size(CROP, 0.35) * RATE)
    clean, noise = 0.1 * torch.randn(2, crops, samples, device=setting.device)
    return clean + noise, clean


def precisions(setting: Setting) -> tuple[str, ...]:
    """Training refuses low precision on a CPU."""
    return setting.size(("float32", "bf16"), ("float32",))


def measure(setting: Setting, t: Training, crops: int, name: str) -> Line:
    pair = noise_pair(setting, crops)
    time, memory = setting.peak(lambda: setting.milliseconds(lambda: train_step(t, *pair, 0.5), 10))
    rate = crops / time * 1e3
    sums = f"{CROP * rate:.0f} s of audio/s, {memory:.1f} GiB; {EPOCH:,} crops in {EPOCH / rate:.0f} s"
    return Line(name, time, "ms", f"{rate:.1f} crops/s, {sums}")


def gan(setting: Setting) -> Iterator[Line]:
    """Ours first, so that the ratios stand in the line of the usual one."""
    yield Line("labels", None, "", "a stand-in of PESQ, there at once")
    yield Line("the usual network's scan", None, "", usual.KERNEL)
    for crops in setting.size((4, 16), (2,)):
        ours = []
        for precision in precisions(setting):
            name = f"both nets, {crops} crops of {CROP:g} s, {precision}"
            ours.append(attempt(name, partial(advanced, setting, crops, name, f"train.precision={precision}")))
            yield ours[-1]
        name = f"the usual way, {crops} crops, float32"
        line = attempt(name, partial(advanced, setting, crops, name, "train.precision=float32", change=run_usual))
        yield replace(line, note=line.note + "".join(_ratio(line, other) for other in ours))


def advanced(setting: Setting, crops: int, name: str, *changes: str, change: Change = lambda t: t) -> Line:
    t = open_training(setting, "advanced-mamba.yaml", *changes, *(TINY if setting.dry else ()))
    return measure(setting, change(t), crops, name)


def _ratio(usual: Line, ours: Line) -> str:
    return f"; {usual.value / ours.value:.2f} x the time of {ours.name}" if usual.value and ours.value else ""


def causal(setting: Setting) -> Iterator[Line]:
    for model in setting.size(("causal-small", "causal-medium"), ("causal-small",)):
        for precision in precisions(setting):
            for crops in setting.size((64, 256), (2,)):
                name = f"{model}, {crops} crops of {CROP:g} s, {precision}"
                changes = (f"model={{preset: {model}}}", f"train.precision={precision}")
                yield attempt(name, partial(small, setting, crops, name, *changes))


def small(setting: Setting, crops: int, name: str, *changes: str) -> Line:
    return measure(setting, open_training(setting, "causal-small.yaml", *changes), crops, name)


def compiled(setting: Setting) -> Iterator[Line]:
    """Inductor needs a compiler and a minute, neither of which a dry run asks for."""
    change = f"train.compile={setting.size('true', 'false')}"
    crops, name = setting.size(64, 2), "causal-small, float32, torch.compile"
    yield attempt(name, partial(small, setting, crops, f"{name}, {crops} crops", change))
    crops, name = setting.size(16, 2), "advanced-mamba, bf16, torch.compile"
    low = f"train.precision={precisions(setting)[-1]}"
    yield attempt(name, partial(advanced, setting, crops, f"{name}, {crops} crops", low, change))


def mixing(setting: Setting) -> Iterator[Line]:
    """On made-up audio, since only its amount matters."""
    bank, config = made_up_bank(setting.size(600, 20)), MixConfig(crop_seconds=setting.size(CROP, 0.5))
    mixer, crops = DeviceMixer(bank, config, setting.device), setting.size(64, 8)
    indices = iter(range(1 << 30))
    time = setting.milliseconds(lambda: mixer.batch(next(indices), crops), 50)
    rate = crops / time * 1e3
    yield Line(f"{crops} pairs of {config.crop_seconds:g} s, on the device", time, "ms", f"{rate:.0f} crops/s")
    host, count = Mixer(bank, config), setting.size(128, 4)
    items = setting.latencies(lambda: host.sample(np.random.default_rng(next(indices))), count)
    mean = float(np.mean(items))
    yield Line("one pair, on one thread of the host", mean, "ms", f"{1e3 / mean:.0f} crops/s")
    again = DeviceMixer(bank, config, setting.device)
    same = all(torch.equal(a, b) for a, b in zip(mixer.batch(3, crops), again.batch(3, crops), strict=True))
    yield Line("a batch, mixed twice", None, "", "ok: equal bits" if same else f"{WRONG}: the bits differ")


def made_up_bank(seconds: int) -> SpeechBank:
    """Two voices and two noises of `seconds` each."""
    samples = seconds * RATE
    audio = (np.random.default_rng(0).standard_normal(4 * samples, np.float32) * 2000).astype(np.int16)
    kinds = (("speech", "a"), ("speech", "b"), ("noise", ""), ("noise", ""))
    tracks = [Track(kind, "", voice, i * samples, (i + 1) * samples) for i, (kind, voice) in enumerate(kinds)]
    return SpeechBank(audio, tracks)
