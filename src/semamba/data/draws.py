"""Random numbers for mixing on a device: decisions on the host, signals on the device, both from one seed.

What decides a shape (how many rows take a branch, where a crop lies) is drawn by NumPy, so that nothing waits for the
device; what fills tensors is drawn by the device's own generator. Equal seeds give equal numbers on one kind of device;
a CPU and a GPU agree about the decisions only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Draws:
    """All randomness of one batch."""

    def __init__(self, device: torch.device, *seeds: int) -> None:
        self.device = device
        self.host = np.random.default_rng(seeds)
        self.generator = torch.Generator(device)
        self.generator.manual_seed(int(self.host.integers(1 << 62)))

    def chance(self, probability: float, count: int) -> np.ndarray:
        """(count,) of bool, on the host."""
        return self.host.random(count) < probability

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.exp(self.uniform(float(np.log(low)), float(np.log(high)), *shape))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def send(self, array: np.ndarray) -> Tensor:
        """A host array on the device, without waiting for what the device is doing."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def rows(self, chosen: np.ndarray) -> Tensor:
        """Indices of the true elements of a host array, on the device."""
        return self.send(np.flatnonzero(chosen))
