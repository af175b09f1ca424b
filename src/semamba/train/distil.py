"""A frozen teacher: any model of the package, with its own spectrum, whose waves are a second target of the student.

Letters: B batch, n samples. Waves are (B, n) float32 at 16 kHz.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from semamba import checkpoint, losses
from semamba.losses import LossConfig
from semamba.spectrum import Spectrum, StftConfig
from semamba.train.target import rms

HEARD_RMS = 0.06  # for teachers that do not normalise: the mean level of VoiceBank-DEMAND


class Teacher:
    """Holds no state; several threads may ask it at once."""

    def __init__(self, name_or_path: str, device: torch.device) -> None:
        """Raises SemambaError when there is no such model."""
        self.model: nn.Module = checkpoint.load(name_or_path, device).requires_grad_(False)
        stft: StftConfig = self.model.config.stft  # type: ignore[assignment, union-attr]
        self.spectrum = Spectrum(stft).to(device)

    @torch.no_grad()
    def ask(self, noisy: Tensor) -> Tensor:
        """What the teacher makes of (B, n), at the level of the input."""
        level = 1.0 if self.model.normalise == "rms" else HEARD_RMS
        scale = level / rms(noisy).clamp(min=1e-5)
        spec, _ = self.model(self.spectrum.analyse(noisy * scale))
        return self.spectrum.synthesise(spec.float(), noisy.shape[-1]) / scale

    def teach(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """The teacher's waves; the clean one for items where the teacher's is no closer to it than the noisy one."""
        wave = self.ask(noisy)
        closer = (wave - clean).square().sum(-1) < (noisy - clean).square().sum(-1)
        return torch.where(closer[:, None], wave, clean)


def distance(config: LossConfig, spectrum: Spectrum, spec: Tensor, wave: Tensor, taught: Tensor) -> Tensor:
    """The student's own loss, without its metric term, towards the taught wave instead of the clean one; scalar."""
    plain = dataclasses.replace(config, metric=0.0)
    return losses.total(plain, losses.compute(plain, spectrum, spec, spectrum.analyse(taught), wave, taught))
