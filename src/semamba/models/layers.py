"""Layers shared by the models: convolutions, norms and activations on one feature layout.

Letters: B batch, T frames, F frequency bins, C channels, L sequence length.
Features are (B, T, F, C) with C contiguous. Torch's 2-d convolutions see them as a channels_last view of
(B, C, T, F), so nothing is copied between the encoder's first layer and the decoder's last one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semamba.ops import can_join, dense_layer, fused_backend, instance_norm, line_layer, prelu


class FeatureConv(nn.Conv2d):
    """2-d convolution of features (B, T, F, C); kernel, stride and dilation are (time, frequency)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class FeatureConvTranspose(nn.ConvTranspose2d):
    """2-d transposed convolution of features (B, T, F, C)."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2), output_size).permute(0, 2, 3, 1)


class InstanceNorm(nn.Module):
    """Zero mean, unit variance over time and frequency for every item and channel, then an affine map.

    Same parameters and result as `nn.InstanceNorm2d(affine=True)`. Written out because torch's own copies channels_last
    input twice, and its group norm loses four digits on it (variance as a difference of two large sums).
    A constant input, silence included, gives the bias.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.weight, self.bias, eps=self.eps)


class FeaturePReLU(nn.PReLU):
    """One slope for each of the C channels on the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return prelu(x, self.weight)


class LearnableSigmoid(nn.Module):
    """beta * sigmoid(slope * x) with one slope for each position of the last axis (MetricGAN+, Fu et al. 2021)."""

    def __init__(self, size: int, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.slope = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.beta * torch.sigmoid(self.slope * x)


class ConvBlock(nn.Module):
    """A convolution of features, then InstanceNorm and PReLU, these two in one pass where a kernel can."""

    def __init__(self, conv: FeatureConv | FeatureConvTranspose) -> None:
        super().__init__()
        self.conv = conv
        self.norm = InstanceNorm(conv.out_channels)
        self.activation = FeaturePReLU(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, weights = self.conv, self.norm, self._weights()
        alone = conv.kernel_size[0] == 1 and conv.padding == (0, 0) and conv.stride[0] == 1  # frame by frame
        if alone and can_join([x], weights):
            transposed = isinstance(conv, FeatureConvTranspose)
            return line_layer(x, *weights, stride=conv.stride[1], transposed=transposed, eps=norm.eps)
        y = conv(x)
        if fused_backend(y, weights) == "cpu":
            return instance_norm(y, *weights[2:], norm.eps, owned=True)
        return self.activation(norm(y))

    def join(self, groups: list[Tensor]) -> Tensor:
        """The block of the groups' channels side by side, for a 3 x 3 convolution; not copied where a kernel can."""
        if can_join(groups, self._weights()):
            return dense_layer(groups, *self._weights(), dilation=self.conv.dilation[0], eps=self.norm.eps)
        return self(torch.cat(groups, dim=-1) if len(groups) > 1 else groups[0])

    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        assert self.conv.bias is not None  # the layers are made with one
        return self.conv.weight, self.conv.bias, self.norm.weight, self.norm.bias, self.activation.weight


class DenseBlock(nn.Module):
    """Dilated 3 x 3 convolutions, each fed with the outputs of all before it; (B, T, F, C) -> the same.

    Layer i reaches 2^i frames to either side. Newest features come first in the concatenation, as in MP-SENet.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ConvBlock(FeatureConv(channels * (i + 1), channels, 3, dilation=(2**i, 1), padding=(2**i, 1)))
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        known = [x]
        for layer in self.layers:
            assert isinstance(layer, ConvBlock)
            x = layer.join(known)
            known.insert(0, x)
        return x


class TimeConv(nn.Conv1d):
    """Convolution along time of (B, T, C); length kept.

    Causal: left-padded with the last k - 1 frames of the past (`state`, zeros at the start), which it returns anew.
    Non-causal: zeros on both sides, no state.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, causal: bool) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=0 if causal else kernel // 2)
        self.causal = causal

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        if self.causal:
            past = self.kernel_size[0] - 1
            if state is None:
                state = x.new_zeros(x.shape[0], past, x.shape[2])
            x = torch.cat([state, x], dim=1)
            state = x[:, x.shape[1] - past :]
        return super().forward(x.transpose(1, 2)).transpose(1, 2), state
