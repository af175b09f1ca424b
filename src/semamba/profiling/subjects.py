"""What can be profiled: shipped models, presets, folders with weights, and the four cores by themselves.

Letters: B batch, n samples, T frames, G bands, d channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from semamba import checkpoint, models
from semamba.errors import SemambaError
from semamba.models.complexity import SAMPLE_RATE, count_macs
from semamba.models.mixers import Mixer, MixerConfig, build_mixer
from semamba.models.presets import PRESETS
from semamba.profiling.stages import StageClock
from semamba.spectrum import Spectrum

Weights = Literal["shipped", "folder", "random"]

# One mixer along time as it stands in the advanced models: in each of 100 bands a sequence of 160 steps a second.
CORES = {
    "core-mamba": MixerConfig("mamba", expand=4),
    "core-transformer": MixerConfig("transformer"),
    "core-conformer": MixerConfig("conformer"),
    "core-lstm": MixerConfig("lstm"),
}
CORE_BANDS, CORE_CHANNELS, CORE_HOP = 100, 64, 100


class Subject(ABC):
    """Something that takes a signal of some seconds and can be run on it."""

    network: nn.Module

    @abstractmethod
    def signal(self, seconds: float, batch: int, device: torch.device) -> Tensor:
        """White noise, always the same."""

    @abstractmethod
    def run(self, signal: Tensor, clock: StageClock | None = None) -> Tensor:
        """One pass over the signal."""

    @abstractmethod
    def macs_per_second(self, seconds: float) -> tuple[float, float]:
        """Multiply-accumulates for a second of audio in a signal this long: the paper's count, the honest one."""


class ModelSubject(Subject):
    """A model from waveform to waveform, on the whole signal at once."""

    def __init__(self, model: Any) -> None:
        self.network = model.eval()
        self.model = model  # with what our models have beside a module: stft, causal, normalise, config
        self.spectrum = Spectrum(self.model.stft)

    def signal(self, seconds: float, batch: int, device: torch.device) -> Tensor:
        self.spectrum.to(device)
        return 0.1 * _noise(batch, round(seconds * SAMPLE_RATE)).to(device)  # (B, n)

    def run(self, signal: Tensor, clock: StageClock | None = None) -> Tensor:
        clock = clock or StageClock(None)
        level = signal.square().mean(-1, keepdim=True).sqrt() if self.model.normalise == "rms" else 1.0
        with clock.span("STFT"):
            spectrum = self.spectrum.analyse(signal / level)
        enhanced = self.model(spectrum)[0]
        with clock.span("iSTFT"):
            wave = self.spectrum.synthesise(enhanced, signal.shape[-1])
        return wave * level

    def macs_per_second(self, seconds: float) -> tuple[float, float]:
        from semamba.models.complexity import profile

        cost = profile(self.model.config, self.spectrum.frames(round(seconds * SAMPLE_RATE)))
        return cost.paper_macs_per_second, cost.honest_macs_per_second


class CoreSubject(Subject):
    """One mixer on features (B, T, G, d), along time, without any codec."""

    def __init__(self, config: MixerConfig) -> None:
        self.network = Core(build_mixer(config, CORE_CHANNELS)).eval()

    def signal(self, seconds: float, batch: int, device: torch.device) -> Tensor:
        return _noise(batch, self._frames(seconds), CORE_BANDS, CORE_CHANNELS).to(device)

    def run(self, signal: Tensor, clock: StageClock | None = None) -> Tensor:
        return self.network(signal)

    def macs_per_second(self, seconds: float) -> tuple[float, float]:
        shape = (1, self._frames(seconds), CORE_BANDS, CORE_CHANNELS)
        paper, honest = count_macs(self.network.to("meta"), torch.empty(shape, device="meta"))
        return paper / seconds, honest.total() / seconds

    @staticmethod
    def _frames(seconds: float) -> int:
        return max(1, round(seconds * SAMPLE_RATE / CORE_HOP))


class Core(nn.Module):
    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer.along(x, 1)


def default_names() -> list[str]:
    """Models that come with weights, then the presets."""
    shipped = checkpoint.shipped()
    return [*shipped, *(name for name in PRESETS if name not in shipped)]


def weights_of(name: str) -> Weights:
    """Where the weights of `name` come from. Raises SemambaError when there is no such subject."""
    if name in checkpoint.shipped():
        return "shipped"
    if name in PRESETS or name in CORES:
        return "random"
    if not Path(name).exists():
        known = ", ".join([*default_names(), *CORES])
        raise SemambaError(f"model '{name}': not known and not a folder; known: {known}")
    checkpoint.locate(name)
    return "folder"


def open_subject(name: str) -> Subject:
    """The subject, on the CPU; one without trained weights gets random ones, always the same."""
    weights = weights_of(name)
    torch.manual_seed(0)
    if name in CORES:
        return CoreSubject(CORES[name])
    return ModelSubject(models.build(PRESETS[name]) if weights == "random" else checkpoint.load(name))


def describe(name: str, seconds: float) -> dict[str, Any]:
    """What is known without measuring: size, cost, causality."""
    weights, subject = weights_of(name), open_subject(name)
    parameters = sum(parameter.numel() for parameter in subject.network.parameters())
    paper, honest = subject.macs_per_second(seconds)
    model = subject.model if isinstance(subject, ModelSubject) else None
    causal = bool(model is not None and model.causal)
    return {
        "name": name,
        "weights": weights,
        "parameters": parameters,
        "causal": causal,
        "latency_ms": 1000 * model.stft.n_fft / SAMPLE_RATE if model is not None and causal else None,
        "paper_macs_per_second": paper,
        "honest_macs_per_second": honest,
    }


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
