"""advanced-mamba and its discriminator run the usual way: mamba-ssm's layer, channels before time, copies in between.

The same parameters under the same names as ours, so `load_state_dict` takes them over. Written after the description
in the paper (Chao et al. 2024, section 3.2) the way such networks are commonly written in PyTorch; the baseline of
benchmarks/gpu.py. `KERNEL` says which scan runs.

Letters: B batch, T frames, F bins, C channels, L length, d = d_model, D inner channels, N state size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from semamba.models.advanced import AdvancedConfig
from semamba.models.layers import LearnableSigmoid
from semamba.models.mamba import MambaConfig, RMSNorm
from semamba.models.mixers import MixerConfig
from semamba.ops import selective_scan
from semamba.spectrum import magnitude, phase


def _find_layer() -> Any:
    """mamba-ssm's own layer, with its fused path where causal-conv1d is there too."""
    try:
        from mamba_ssm.modules.mamba_simple import Mamba
    except Exception:  # a broken build raises more than ImportError
        return None
    return Mamba


def _find_extension() -> Any:
    """mamba-ssm's compiled scan alone."""
    try:
        import selective_scan_cuda
    except Exception:
        return None
    return selective_scan_cuda


LAYER, EXTENSION = _find_layer(), _find_extension()
KERNEL = "mamba-ssm" if LAYER else "mamba-ssm's scan" if EXTENSION else "our scan in its layout"


class OfficialScan(torch.autograd.Function):
    """mamba-ssm's kernel on u, delta, z (B, D, L), A (D, N), B, C (B, N, L), D, bias (D,), with softplus."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> Tensor:
        skip, z, bias = rest
        tensors = (u, delta, A, B[:, None], C[:, None], skip, z, bias)
        out, states, gated = EXTENSION.fwd(*tensors, True)
        ctx.save_for_backward(*tensors, states, out)
        return gated

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        *tensors, states, out = ctx.saved_tensors
        given = (*tensors, gradient.contiguous(), states, out, None, True, False)
        du, ddelta, dA, dB, dC, dskip, dbias, dz = EXTENSION.bwd(*given)
        return du, ddelta, dA, dB.squeeze(1), dC.squeeze(1), dskip, dz, dbias


def official_scan(*tensors: Tensor) -> Tensor:
    """u, delta, A, B, C, D, z, delta_bias in mamba-ssm's layout. Raises ImportError where its kernel is not here."""
    if LAYER is not None:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        return selective_scan_fn(*tensors, delta_softplus=True)
    if EXTENSION is None:
        raise ImportError("mamba_ssm cannot be imported here")
    return OfficialScan.apply(*tensors)


class ComposedMamba(nn.Module):
    """mamba-ssm's layer where only its scan is here, or not even that; (B, L, d) -> the same."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        inner, rank, n = config.d_inner, config.dt_rank, config.d_state
        self.sizes = (rank, n, n)
        self.in_proj = nn.Linear(config.d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, config.d_conv, groups=inner, padding=config.d_conv - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * n, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, n))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        u, z = self.in_proj(x).transpose(1, 2).contiguous().chunk(2, dim=1)  # (B, D, L)
        u = F.silu(self.conv1d(u)[..., :length])
        delta, b, c = self.x_proj(u.transpose(1, 2).reshape(batch * length, -1)).split(self.sizes, dim=-1)
        delta = (self.dt_proj.weight @ delta.t()).unflatten(1, (batch, length)).transpose(0, 1)
        b, c = (t.unflatten(0, (batch, length)).transpose(1, 2).contiguous() for t in (b, c))
        weights = -torch.exp(self.A_log), self.D, self.dt_proj.bias
        return self.out_proj(_scan(u, delta, b, c, z, *weights).transpose(1, 2))


def _scan(u: Tensor, delta: Tensor, b: Tensor, c: Tensor, z: Tensor, *weights: Tensor) -> Tensor:
    A, skip, bias = weights
    if u.is_cuda and EXTENSION is not None:
        return official_scan(u, delta.contiguous(), A, b, c, skip, z, bias)
    u, delta, b, c, z = (t.transpose(1, 2) for t in (u, delta, b, c, z))
    return selective_scan(u, delta, A, b, c, skip, z, bias, delta_softplus=True)[0].transpose(1, 2)


class Layer(nn.Module):
    """x + Mamba(RMSNorm(x))."""

    def __init__(self, config: MixerConfig, d_model: int) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model, config.norm_eps)
        if LAYER is not None:
            self.mixer = LAYER(d_model, d_state=config.d_state, d_conv=config.d_conv, expand=config.expand)
        else:
            self.mixer = ComposedMamba(MambaConfig(d_model, config.expand, config.d_state, config.d_conv))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.norm(x))


class Bidirectional(nn.Module):
    """Two layers, one of them between flips."""

    def __init__(self, config: MixerConfig, d_model: int) -> None:
        super().__init__()
        self.forwards, self.backwards = Layer(config, d_model), Layer(config, d_model)
        self.fuse = nn.Linear(2 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fuse(torch.cat([self.forwards(x), self.backwards(x.flip(1)).flip(1)], dim=-1))


class TimeFrequencyBlock(nn.Module):
    """(B, C, T, F) -> the same."""

    def __init__(self, config: MixerConfig, channels: int) -> None:
        super().__init__()
        self.time, self.frequency = Bidirectional(config, channels), Bidirectional(config, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, f = x.shape
        x = self.time(x.permute(0, 3, 2, 1).contiguous().view(b * f, t, c))
        x = self.frequency(x.view(b, f, t, c).permute(0, 2, 1, 3).contiguous().view(b * t, f, c))
        return x.view(b, t, f, c).permute(0, 3, 1, 2).contiguous()


class ConvBlock(nn.Module):
    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.InstanceNorm2d(conv.out_channels, affine=True)
        self.activation = nn.PReLU(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class DenseBlock(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ConvBlock(nn.Conv2d(channels * (i + 1), channels, 3, dilation=(2**i, 1), padding=(2**i, 1)))
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for layer in self.layers:
            x = layer(known)
            known = torch.cat([x, known], dim=1)
        return x


class Advanced(nn.Module):
    """`forward(spectrum (B, T, F, 2)) -> (enhanced (B, T, F, 2), None)`, equal to our AdvancedModel."""

    causal = False

    def __init__(self, config: AdvancedConfig) -> None:
        super().__init__()
        self.config, self.stft, self.normalise = config, config.stft, config.normalise
        width, depth = config.channels, config.dense_depth
        self.encoder = nn.ModuleDict(
            {
                "widen": ConvBlock(nn.Conv2d(2, width, 1)),
                "dense": DenseBlock(width, depth),
                "down": ConvBlock(nn.Conv2d(width, width, (1, 3), stride=(1, 2))),
            }
        )
        self.blocks = nn.ModuleList(TimeFrequencyBlock(config.mixer, width) for _ in range(config.blocks))
        up = (width, width, (1, 3), (1, 2))
        self.magnitude_decoder = nn.ModuleDict(
            {
                "dense": DenseBlock(width, depth),
                "up": nn.ConvTranspose2d(*up),
                "narrow": ConvBlock(nn.Conv2d(width, 1, 1)),
                "out": nn.Conv2d(1, 1, 1),
                "sigmoid": LearnableSigmoid(config.stft.n_bins, config.beta),
            }
        )
        decoder = {"dense": DenseBlock(width, depth), "up": ConvBlock(nn.ConvTranspose2d(*up))}
        self.phase_decoder = nn.ModuleDict({**decoder, "out": nn.Conv2d(width, 2, 1)})

    def forward(self, spectrum: Tensor, state: None = None) -> tuple[Tensor, None]:
        size = magnitude(spectrum)
        x = torch.stack([size, phase(spectrum)], dim=1)  # (B, 2, T, F)
        for layer in (*self.encoder.values(), *self.blocks):
            x = layer(x)
        mask, vector = x, x
        for name, layer in self.magnitude_decoder.items():
            mask = layer(mask.squeeze(1) if name == "sigmoid" else mask)
        for layer in self.phase_decoder.values():
            vector = layer(vector)
        angle = torch.atan2(vector[:, 1], vector[:, 0])
        enhanced = mask * size
        return torch.stack([enhanced * torch.cos(angle), enhanced * torch.sin(angle)], dim=-1), None


class Discriminator(nn.Module):
    """Equal to our MetricDiscriminator."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        sizes = (2, channels, 2 * channels, 4 * channels, 8 * channels)
        layers: list[nn.Module] = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            conv = spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False))
            layers += [conv, nn.InstanceNorm2d(b, affine=True), nn.PReLU(b)]
        self.features = nn.Sequential(*layers)
        first, second = nn.Linear(8 * channels, 4 * channels), nn.Linear(4 * channels, 1)
        self.score = nn.Sequential(
            spectral_norm(first),
            nn.Dropout(dropout),
            nn.PReLU(4 * channels),
            spectral_norm(second),
            LearnableSigmoid(1),
        )

    def forward(self, clean: Tensor, enhanced: Tensor) -> Tensor:
        x = self.features(torch.stack([clean, enhanced], dim=1))
        return self.score(x.amax(dim=(2, 3))).squeeze(-1)
