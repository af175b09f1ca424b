"""The causal family: real-time enhancement, frame by frame, on one CPU core.

Letters: B batch, T frames, F bins, S bands after the first convolution, G sub-bands inside the blocks,
C codec channels, d block channels. Features are (B, T, bands, channels) from encoder to decoder.

    compressed spectrum / running level -> bands (one strided convolution along frequency) -> k = 3 layers
    -> learned map S -> G -> blocks of (Mamba along time, attention or Mamba along frequency)
    -> map back G -> S + skip -> k = 3 layers -> strided transposed convolution -> complex mask (or one of `OUTPUTS`)

Nothing convolves along time: the only memory of the past is the Mamba state and the running level, so a frame
needs just its own samples. The frequency layout follows FastEnhancer (Ahn et al. 2025); the blocks are SEMamba's
time-frequency Mamba (Chao et al. 2024) with the time direction uni-directional, as in RT-SEMamba.

The input is divided by a running mean of its compressed magnitude and the output is a mask, or multiplied by that
mean, so scaling the signal scales the result and changes nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semamba.errors import SemambaError
from semamba.models.mamba import Mamba, MambaConfig, MambaState, RMSNorm
from semamba.ops import frequency_attention, frequency_conv
from semamba.spectrum import StftConfig, magnitude

# Below this mean compressed magnitude (about -110 dBFS) a frame counts as silence and is not amplified.
_LEVEL_FLOOR = 0.02

# What the last layer gives for every bin, and where it starts: a complex mask or a real one, which keeps the noisy
# phase, at 1; or the compressed spectrum itself, over the running level, at 0.
OUTPUTS = {"complex_mask": (1.0, 0.0), "real_mask": (1.0,), "mapping": (0.0, 0.0)}


def _causal_stft() -> StftConfig:
    return StftConfig(n_fft=512, hop_length=256, window="sqrt_hann", framing="causal")


@dataclass(frozen=True)
class CausalConfig:
    """Sizes of one member of the family."""

    kind: Literal["causal"] = "causal"
    stft: StftConfig = field(default_factory=_causal_stft)
    channels: int = 32
    stride: int = 4  # bins per band; the first kernel spans twice as many
    layers: int = 2  # k = 3 layers on each side
    sub_bands: int = 24
    d_model: int = 48
    blocks: int = 4
    expand: int = 2
    d_state: int = 16
    frequency: Literal["attention", "mamba"] = "attention"
    heads: int = 4
    level_seconds: float = 1.0
    output: Literal["complex_mask", "real_mask", "mapping"] = "complex_mask"

    @property
    def bands(self) -> int:
        return (self.stft.n_bins - 1) // self.stride


class CausalState(NamedTuple):
    """Everything a causal model remembers between two calls."""

    level: Tensor  # (B, 2): decayed sum of frame magnitudes, decayed count of frames
    blocks: tuple[MambaState, ...]  # one per block, batch B * G


class CausalModel(nn.Module):
    """Enhancer of single frames with memory; `forward(spectrum, state=None) -> (enhanced, state)`."""

    causal = True
    normalise = "none"

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config, self.stft = config, config.stft
        channels, bands, stride = config.channels, config.bands, config.stride
        frames_per_second = 16_000 / config.stft.hop_length
        self.decay = math.exp(-1.0 / (config.level_seconds * frames_per_second))
        self.encode_in = nn.Linear(2 * stride * 3, channels)
        self.band_bias = nn.Parameter(torch.zeros(bands, channels))
        self.encoder = nn.ModuleList(FrequencyConv(channels) for _ in range(config.layers))
        self.down = BandMap(bands, config.sub_bands, channels, config.d_model)
        self.sub_band_bias = nn.Parameter(torch.zeros(config.sub_bands, config.d_model))
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.blocks))
        self.up = BandMap(config.sub_bands, bands, config.d_model, channels)
        self.decoder = nn.ModuleList(FrequencyConv(channels) for _ in range(config.layers))
        self.decode_norm = RMSNorm(channels)
        start = torch.tensor(OUTPUTS[config.output])
        self.decode_out = nn.Linear(channels, 2 * stride * len(start))
        nn.init.normal_(self.band_bias, std=0.02)
        nn.init.normal_(self.sub_band_bias, std=0.02)
        with torch.no_grad():  # close to the start: each of the two halves of a kernel gives one half of it
            self.decode_out.weight.mul_(0.1)
            self.decode_out.bias.copy_((start / 2).repeat(2 * stride))

    def forward(self, spectrum: Tensor, state: CausalState | None = None) -> tuple[Tensor, CausalState]:
        """Enhance a compressed spectrum (B, T, F, 2); frames in one call or in several give the same result."""
        level, level_state = self._running_level(spectrum, state.level if state is not None else None)
        skip = self._encode(spectrum / level[:, :, None, None])
        x = self.down(skip) + self.sub_band_bias  # (B, T, G, d)
        past = state.blocks if state is not None else (None,) * len(self.blocks)
        states: list[MambaState] = []
        for block, memory in zip(self.blocks, past, strict=True):
            x, memory = block(x, memory)
            states.append(memory)
        enhanced = self._enhance(self._decode(skip + self.up(x)), spectrum, level)
        return enhanced, CausalState(level_state, tuple(states))

    @torch.no_grad()
    def pass_through(self, first: int) -> None:
        """Make the blocks from `first` on give back what they get, as a start for training a deeper model."""
        for block in self.blocks[first:]:
            for layer in block.modules():
                if isinstance(layer, Mamba):
                    layer.out_proj.weight.zero_()
                elif isinstance(layer, FrequencyAttention):
                    layer.out.weight.zero_()
                    layer.out.bias.zero_()

    def _encode(self, x: Tensor) -> Tensor:
        """(B, T, F, 2) -> (B, T, S, C). The bin at 0 Hz carries no speech and is left out."""
        stride = self.config.stride
        x = torch.cat([x, magnitude(x)[..., None]], dim=-1)[:, :, 1:]  # (B, T, F - 1, 3)
        x = F.pad(x, (0, 0, stride // 2, stride - stride // 2))
        x = x.unflatten(2, (-1, stride)).flatten(3)  # (B, T, S + 1, 3 stride)
        x = self.encode_in(torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=-1)) + self.band_bias
        for layer in self.encoder:
            x = layer(x)
        return x

    def _decode(self, x: Tensor) -> Tensor:
        """(B, T, S, C) -> output (B, T, F, 2 or 1), the transposed convolution that mirrors `_encode`."""
        stride, parts = self.config.stride, len(OUTPUTS[self.config.output])
        for layer in self.decoder:
            x = layer(x)
        x = self.decode_out(F.silu(self.decode_norm(x)))  # (B, T, S, 2 halves * stride * parts)
        first, second = x.chunk(2, dim=-1)
        y = F.pad(first, (0, 0, 0, 1)) + F.pad(second, (0, 0, 1, 0))  # (B, T, S + 1, stride * parts)
        y = y.unflatten(3, (stride, parts)).flatten(2, 3)[:, :, stride // 2 : stride // 2 + self.stft.n_bins - 1]
        return torch.cat([y[:, :, :1], y], dim=2)  # the bin at 0 Hz takes what the next one has

    def _enhance(self, y: Tensor, spectrum: Tensor, level: Tensor) -> Tensor:
        """Enhanced spectrum (B, T, F, 2) from the output, the noisy spectrum and its running level (B, T)."""
        if self.config.output == "mapping":
            heard = level > _LEVEL_FLOOR
            return y * torch.where(heard, level, 0.0)[:, :, None, None]
        if self.config.output == "real_mask":
            return y * spectrum
        return torch.view_as_real(torch.view_as_complex(spectrum.contiguous()) * torch.view_as_complex(y))

    def _running_level(self, spectrum: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Exponentially decayed mean magnitude of the frames so far, (B, T), and its state (B, 2)."""
        size = magnitude(spectrum.detach()).mean(-1)  # (B, T)
        values = torch.stack([size, torch.ones_like(size)], dim=1)  # (B, 2, T)
        if state is None:
            state = values.new_zeros(values.shape[0], 2)
        parts: list[Tensor] = []
        if not size.shape[1]:
            return size, state
        if size.shape[1] == 1:  # a stream: the step itself is less work than its matrix
            state = values[..., 0] + self.decay * state
            return (state[:, :1] / state[:, 1:]).clamp(min=_LEVEL_FLOOR), state
        for chunk in values.split(256, dim=-1):  # the recurrence as one small triangular matrix per chunk
            steps = torch.arange(chunk.shape[-1], device=chunk.device)
            lag = steps[:, None] - steps[None, :]
            matrix = torch.where(lag >= 0, self.decay ** lag.clamp(min=0).to(chunk.dtype), 0.0)
            parts.append(chunk @ matrix.T + state[..., None] * self.decay ** (steps + 1).to(chunk.dtype))
            state = parts[-1][..., -1]
        total = torch.cat(parts, dim=-1)
        return (total[:, 0] / total[:, 1]).clamp(min=_LEVEL_FLOOR), state


class CausalBlock(nn.Module):
    """Mamba along time in every sub-band, then a mixer along frequency in every frame; both pre-norm, residual."""

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        mamba = MambaConfig(config.d_model, config.expand, config.d_state)
        self.time_norm = RMSNorm(config.d_model)
        self.time = Mamba(mamba)
        self.frequency_norm = RMSNorm(config.d_model)
        if config.frequency == "attention":
            self.frequency: nn.Module = FrequencyAttention(config.d_model, config.heads)
        else:
            self.frequency = BidirectionalMamba(mamba)

    def forward(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        x, state = self.time.residual(x, self.time_norm, 1, state)
        return self.frequency(x, self.frequency_norm), state


class FrequencyConv(nn.Module):
    """x + convolution (k = 3 along frequency) of silu(norm(x)); (B, T, S, C) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.conv = nn.Linear(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return frequency_conv(x, self.norm.weight, self.conv.weight, self.conv.bias, self.norm.eps)


class BandMap(nn.Module):
    """Learned map from one set of bands to another, then from one number of channels to another."""

    def __init__(self, bands_in: int, bands_out: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.bands = nn.Parameter(triangular_bands(bands_in, bands_out))  # (out, in)
        self.channels = nn.Linear(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.channels(torch.matmul(self.bands, x))


class FrequencyAttention(nn.Module):
    """x + self-attention of norm(x) across the sub-bands of one frame; (B, T, G, d) -> the same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise SemambaError(f"heads: d_model ({dim}) must be a multiple of it, got {heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, norm: RMSNorm) -> Tensor:
        qkv, out = self.qkv, self.out
        return frequency_attention(x, norm.weight, qkv.weight, qkv.bias, out.weight, out.bias, self.heads, norm.eps)


class BidirectionalMamba(nn.Module):
    """x + an upward and a downward Mamba of norm(x) across the sub-bands of one frame; (B, T, G, d) -> the same."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.up = Mamba(config)
        self.down = Mamba(config, reverse=True)

    def forward(self, x: Tensor, norm: RMSNorm) -> Tensor:
        return self.up.residual(x, norm, 2)[0] + self.down.residual(x, norm, 2)[0] - x


def triangular_bands(bands_in: int, bands_out: int) -> Tensor:
    """Starting point of a BandMap: (out, in) triangles, narrow at low, wide at high frequencies, rows summing to one.

    Centres follow an ERB-like curve, log(1 + 6 f) of the normalised frequency f; when there are more outputs than
    inputs the transpose is used, so that mapping down and up again is a smoothing.
    """
    few, many = min(bands_in, bands_out), max(bands_in, bands_out)
    curve = torch.log1p(6 * torch.arange(many + 1) / many)
    position = (curve[:-1] + curve[1:]) / 2 / curve[-1] * few - 0.5  # of every fine band, in units of coarse bands
    weight = (1 - (position[None, :] - torch.arange(few)[:, None]).abs()).clamp(min=0)  # (few, many)
    weight[0, position < 0] = 1.0
    weight[-1, position > few - 1] = 1.0
    # Low coarse bands may be narrower than one fine band: give each its nearest one.
    weight[torch.arange(few), (position[None, :] - torch.arange(few)[:, None]).abs().argmin(1)] += 1e-2
    if bands_out > bands_in:
        weight = weight.T
    return weight / weight.sum(1, keepdim=True)
