"""The basic model (SEMamba, section 3.1): noisy log magnitude in, enhanced log magnitude out, noisy phase kept.

Letters: B batch, T frames, F bins, C channels.

    log1p magnitude -> convolutions k = 3 over time, 257 -> 1024 -> 512 -> 128 -> 256 -> mixers at 256 -> linear to F

The paper gives neither the activation and norm of the encoder nor the form of the output. Ours: LeakyReLU and no norm
(a norm over channels would hide the level that a log magnitude carries, one over time would see the future), and a
sigmoid mask on the log magnitude, which can only attenuate and never changes the phase.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semamba.errors import SemambaError
from semamba.models.layers import TimeConv
from semamba.models.mixers import MixerConfig, build_mixer, refuse_state
from semamba.spectrum import StftConfig, magnitude


def _log_stft() -> StftConfig:
    return StftConfig(n_fft=512, hop_length=256, window="hann", framing="centred", compression="log1p")


@dataclass(frozen=True)
class BasicConfig:
    """A one-directional mixer makes the whole model causal, one that runs in chunks bounds how far it looks ahead."""

    kind: Literal["basic"] = "basic"
    stft: StftConfig = field(default_factory=_log_stft)
    channels: tuple[int, ...] = (1024, 512, 128, 256)  # of the convolutions; the last is the mixers' width
    kernel: int = 3
    blocks: int = 2
    mixer: MixerConfig = field(default_factory=MixerConfig)
    normalise: Literal["none", "rms"] = "none"

    @property
    def causal(self) -> bool:
        return not self.mixer.bidirectional

    @property
    def lookahead(self) -> int | None:
        """Frames that the model waits for beyond the one it makes; None: all of them."""
        if self.causal:
            return 0
        return self.mixer.chunk - 1 if self.mixer.chunk else None


class BasicState(NamedTuple):
    """What a causal basic model remembers between two calls."""

    encoder: tuple[Tensor, ...]  # last frames seen by each convolution, (B, kernel - 1, channels in)
    mixers: tuple[Any, ...]


class BasicModel(nn.Module):
    """`forward(spectrum (B, T, F, 2), state=None) -> (enhanced (B, T, F, 2), state)`, compressed by log1p."""

    def __init__(self, config: BasicConfig) -> None:
        super().__init__()
        if config.normalise != "none" and config.causal and config.stft.framing == "causal":
            raise SemambaError("normalise: a stream has no level of a whole signal; a causal basic model takes 'none'")
        self.config, self.stft = config, config.stft
        self.causal, self.normalise = config.causal, config.normalise
        sizes = (config.stft.n_bins, *config.channels)
        self.encoder = nn.ModuleList(
            TimeConv(a, b, config.kernel, causal=config.lookahead is not None)
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.mixers = nn.ModuleList(build_mixer(config.mixer, sizes[-1]) for _ in range(config.blocks))
        self.decoder = nn.Linear(sizes[-1], sizes[0])

    def forward(self, spectrum: Tensor, state: BasicState | None = None) -> tuple[Tensor, BasicState | None]:
        """Raises ValueError when a model that is not causal is given a state."""
        if not self.causal:
            refuse_state(state)
        if spectrum.shape[1] == 0:
            return spectrum, state
        x, encoder_states, mixer_states = magnitude(spectrum), [], []  # x (B, T, F)
        for conv, memory in zip(self.encoder, state.encoder if state else [None] * len(self.encoder), strict=True):
            x, memory = conv(x, memory)  # (B, T, C)
            x = F.leaky_relu(x, 0.2)
            encoder_states.append(memory)
        for mixer, memory in zip(self.mixers, state.mixers if state else [None] * len(self.mixers), strict=True):
            x, memory = mixer(x, memory)
            mixer_states.append(memory)
        mask = torch.sigmoid(self.decoder(x))  # (B, T, F)
        after = BasicState(tuple(encoder_states), tuple(mixer_states)) if self.causal else None
        return spectrum * mask[..., None], after
