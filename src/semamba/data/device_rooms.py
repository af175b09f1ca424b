"""Rooms for many rows at once on a device, as `data.rooms` makes them. n rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from semamba.data.device_noise import from_db
from semamba.data.draws import Draws


def simulate(draws: Draws, n: int, length: int, sample_rate: int) -> Tensor:
    """Responses (n, length) as `rooms.simulate` makes them."""
    t = torch.arange(length, device=draws.device)
    decay = torch.exp(-6.9078 / sample_rate / draws.uniform(0.15, 0.8, n, 1) * t)
    tail = draws.normal(n, length) * (t >= draws.uniform(0.002, 0.012, n, 1) * sample_rate)
    most = 9  # early reflections
    low, high = int(0.002 * sample_rate), int(0.05 * sample_rate)
    hits = draws.send(draws.host.integers(low, min(high, length), (n, most)))
    sizes = 4 * draws.normal(n, most) * draws.send(np.arange(most) < draws.host.integers(3, 10, (n, 1)))
    for i in range(most):  # one at a time, since two may meet
        tail.scatter_add_(1, hits[:, i : i + 1], sizes[:, i : i + 1])
    tail *= decay
    tail /= tail.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)
    tail *= from_db(-draws.uniform(-3, 15, n, 1))
    tail[:, 0] = 1.0
    return tail


def reverberate(speech: Tensor, response: Tensor, length: int, early_samples: int) -> tuple[Tensor, Tensor]:
    """(reverberant, early), each (n, length), of speech (n, length + R); see `rooms.reverberate`."""
    size = speech.shape[1]
    head = response[:, :early_samples].clone()
    fade = max(min(early_samples // 5, head.shape[1]), 1)
    head[:, -fade:] *= torch.linspace(1, 0, fade, device=head.device)
    scale = 1 / head.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-9)
    spectrum = torch.fft.rfft(speech) * scale
    wet, early = (torch.fft.irfft(spectrum * torch.fft.rfft(h, size), size)[:, -length:] for h in (response, head))
    return wet, early
