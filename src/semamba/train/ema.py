"""Exponential moving average of the weights: a second model that lags behind the trained one."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """`model` holds the averaged weights, ready to evaluate. The decay warms up: early averages forget the start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        own, new = self.model.state_dict(), model.state_dict()
        floats = [name for name, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[n] for n in floats], [new[n] for n in floats], 1 - decay)
        for name in own.keys() - set(floats):
            own[name].copy_(new[name])
