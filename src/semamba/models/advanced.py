"""The advanced model (SEMamba, section 3.2): magnitude and phase of a compressed spectrum, enhanced in parallel.

Letters: B batch, T frames, F bins, H = (F - 1) / 2 bins after the encoder, C channels.
Features are (B, T, F or H, C) from the encoder's first to the decoders' last layer.

    [magnitude, phase] -> encoder (1 x 1, dense block, halve the bins) -> blocks of (mixer along time, mixer along
    frequency) -> magnitude decoder: mask on the magnitude; phase decoder: a vector whose angle is the phase

The structure is the published one, so official weights fit (see `semamba.convert`). It needs the whole signal:
InstanceNorm takes statistics over time and the convolutions look ahead, whatever the mixer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semamba.errors import SemambaError
from semamba.models.layers import ConvBlock, DenseBlock, FeatureConv, FeatureConvTranspose, LearnableSigmoid
from semamba.models.mixers import MixerConfig, build_mixer, refuse_state
from semamba.ops import can_join, reused_buffers
from semamba.spectrum import StftConfig, magnitude, phase


def _dense_stft() -> StftConfig:
    return StftConfig(n_fft=400, hop_length=100, window="hann", framing="centred", compression="power", power=0.3)


@dataclass(frozen=True)
class AdvancedConfig:
    kind: Literal["advanced"] = "advanced"
    stft: StftConfig = field(default_factory=_dense_stft)  # n_fft a multiple of 4, so that halving the bins inverts
    channels: int = 64
    dense_depth: int = 4
    blocks: int = 4
    mixer: MixerConfig = field(default_factory=MixerConfig)
    beta: float = 2.0  # largest value of the magnitude mask
    normalise: Literal["none", "rms"] = "rms"


class AdvancedModel(nn.Module):
    """`forward(spectrum (B, T, F, 2)) -> (enhanced (B, T, F, 2), None)`, compressed by a power."""

    causal = False

    def __init__(self, config: AdvancedConfig) -> None:
        super().__init__()
        if config.mixer.chunk:
            raise SemambaError("mixer.chunk: an advanced model sees the whole signal all the same; use a basic one")
        self.config, self.stft, self.normalise = config, config.stft, config.normalise
        channels, depth = config.channels, config.dense_depth
        self.encoder = Encoder(channels, depth)
        self.blocks = nn.ModuleList(TimeFrequencyBlock(config.mixer, channels) for _ in range(config.blocks))
        self.magnitude_decoder = MagnitudeDecoder(channels, depth, config.stft.n_bins, config.beta)
        self.phase_decoder = PhaseDecoder(channels, depth)

    def forward(self, spectrum: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Raises ValueError when given a state: the model needs the whole signal."""
        refuse_state(state)
        if torch.is_grad_enabled():
            return self._enhance(spectrum), None
        with reused_buffers():
            return self._enhance(spectrum), None

    def _enhance(self, spectrum: Tensor) -> Tensor:
        size = magnitude(spectrum)  # (B, T, F)
        x = self.encoder(torch.stack([size, phase(spectrum)], dim=-1))  # (B, T, H, C)
        for block in self.blocks:
            x = block(x)
        enhanced = self.magnitude_decoder(x) * size
        return enhanced[..., None] * self.phase_decoder(x)


class Encoder(nn.Module):
    """(B, T, F, 2) -> (B, T, H, C)."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.widen = ConvBlock(FeatureConv(2, channels, 1))
        self.dense = DenseBlock(channels, depth)
        self.down = ConvBlock(FeatureConv(channels, channels, (1, 3), stride=(1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dense(self.widen(x)))


class TimeFrequencyBlock(nn.Module):
    """A mixer along time in every bin, then one along frequency in every frame; (B, T, H, C) -> the same."""

    def __init__(self, mixer: MixerConfig, channels: int) -> None:
        super().__init__()
        self.time = build_mixer(mixer, channels)
        self.frequency = build_mixer(mixer, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.frequency.along(self.time.along(x, 1), 2)


class MagnitudeDecoder(nn.Module):
    """(B, T, H, C) -> mask (B, T, F) in (0, beta)."""

    def __init__(self, channels: int, depth: int, bins: int, beta: float) -> None:
        super().__init__()
        self.dense = DenseBlock(channels, depth)
        self.up = FeatureConvTranspose(channels, channels, (1, 3), stride=(1, 2))
        self.narrow = ConvBlock(FeatureConv(channels, 1, 1))
        self.out = FeatureConv(1, 1, 1)
        self.sigmoid = LearnableSigmoid(bins, beta)

    def forward(self, x: Tensor) -> Tensor:
        return self.sigmoid(self.out(self._widen(self.dense(x))).squeeze(-1))

    def _widen(self, x: Tensor) -> Tensor:
        """(B, T, H, C) -> (B, T, F, 1). Two linear maps with nothing in between are one where no gradient is wanted."""
        up, narrow = self.up, self.narrow
        assert up.bias is not None and narrow.conv.bias is not None
        if not can_join([x], [up.weight, narrow.conv.weight]):
            return narrow(up(x))
        weight = narrow.conv.weight[0, :, 0, 0]  # (C,)
        taps = torch.einsum("cof,o->cf", up.weight[:, :, 0], weight)  # (C, 3): onto bins 2 h, 2 h + 1 and 2 h + 2
        first, second, third = (x @ taps).unbind(-1)  # (B, T, H) each
        even = F.pad(first, (0, 1)) + F.pad(third, (1, 0))
        odd = F.pad(second, (0, 1))
        y = torch.stack([even, odd], dim=-1).flatten(2)[:, :, :-1, None] + (up.bias @ weight + narrow.conv.bias)
        return narrow.activation(narrow.norm(y))


class PhaseDecoder(nn.Module):
    """(B, T, H, C) -> unit vectors (B, T, F, 2), the cosine and sine of the enhanced phase."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.dense = DenseBlock(channels, depth)
        self.up = ConvBlock(FeatureConvTranspose(channels, channels, (1, 3), stride=(1, 2)))
        self.out = FeatureConv(channels, 2, 1)  # real and imaginary part

    def forward(self, x: Tensor) -> Tensor:
        vector = self.out(self.up(self.dense(x)))
        # Dividing by the length is atan2 followed by cosine and sine, without the three transcendental functions.
        return vector * torch.rsqrt(vector.square().sum(-1, keepdim=True) + 1e-12)
