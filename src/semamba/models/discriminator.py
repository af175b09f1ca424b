"""The metric discriminator (MetricGAN, Fu et al. 2019; layers as in MP-SENet and SEMamba): it learns to predict PESQ.

Letters: B batch, T frames, F bins, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from semamba.models.layers import FeatureConv, FeaturePReLU, InstanceNorm, LearnableSigmoid


class MetricDiscriminator(nn.Module):
    """Score in (0, 1) of an enhanced signal next to its clean reference; trained towards (PESQ - 1) / 3.5.

    Takes compressed magnitudes of at least 16 frames and 16 bins. Spectral normalisation bounds its slope, so that
    a generator that follows its gradient is not thrown off.
    """

    def __init__(self, channels: int = 16, dropout: float = 0.3) -> None:
        super().__init__()
        sizes = (2, channels, 2 * channels, 4 * channels, 8 * channels)
        layers: list[nn.Module] = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            conv = FeatureConv(a, b, 4, stride=2, padding=1, bias=False)
            layers += [spectral_norm(conv), InstanceNorm(b), FeaturePReLU(b)]
        self.features = nn.Sequential(*layers)
        self.score = nn.Sequential(
            spectral_norm(nn.Linear(8 * channels, 4 * channels)),
            nn.Dropout(dropout),
            FeaturePReLU(4 * channels),
            spectral_norm(nn.Linear(4 * channels, 1)),
            LearnableSigmoid(1),
        )

    def forward(self, clean: Tensor, enhanced: Tensor) -> Tensor:
        """Two compressed magnitudes (B, T, F) -> scores (B,)."""
        x = self.features(torch.stack([clean, enhanced], dim=-1))  # (B, T / 16, F / 16, 8 C)
        return self.score(x.amax(dim=(1, 2))).squeeze(-1)
