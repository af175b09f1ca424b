"""Optimisers: AdamW, or Muon for the matrices of a model beside AdamW for everything else.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") replaces the momentum of a weight
matrix by the nearest matrix with orthonormal rows or columns, so that every direction of the weights moves alike. The
factor 0.2 sqrt(larger side) gives its steps the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), which lets both
share one learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semamba.train.recipe import DiscriminatorConfig, OptimiserConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1
ITERATIONS = 5
MOMENTUM = 0.95
ADAMW_RMS = 0.2  # root mean square of a step of AdamW, in learning rates


class Optimiser:
    """Several optimisers that step as one. `param_groups` may be changed, as those of any."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Raises ValueError where the state is another optimiser's."""
        if len(content.get("parts", ())) != len(self.parts):
            raise ValueError("the state is of another kind of optimiser")
        for part, state in zip(self.parts, content["parts"], strict=True):
            part.load_state_dict(state)


def adamw(parameters: Sequence[nn.Parameter], cfg: OptimiserConfig | DiscriminatorConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=cfg.lr, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=True)


def muon(model: nn.Module, cfg: OptimiserConfig) -> Optimiser:
    """Muon for the matrices that multiply features, AdamW for the rest."""
    matrices = [parameter for name, parameter in model.named_parameters() if is_matrix(name, parameter)]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    parts = [Muon(matrices, cfg.lr, cfg.weight_decay)] if matrices else []
    return Optimiser([*parts, *([adamw(others, cfg)] if others else [])])


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Tables of biases and of decay rates have two axes as well, but no direction in them means anything."""
    return parameter.ndim == 2 and not name.endswith(("bias", "A_log"))


class Muon(torch.optim.Optimizer):
    """For parameters of two axes."""

    def __init__(self, matrices: Sequence[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():  # equal shapes at once: many small products are one larger one
                directions = orthogonal(torch.stack([self._momentum(weight) for weight in weights]))
                for weight, direction in zip(weights, directions, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(direction, alpha=-group["lr"] * ADAMW_RMS * max(shape) ** 0.5)

    def _momentum(self, weight: Tensor) -> Tensor:
        """Nesterov's: the gradient as it will be after the next step in the same direction."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def orthogonal(x: Tensor) -> Tensor:
    """(n, rows, columns): about U V^T of each U S V^T, singular values between 0.7 and 1.2; zero stays zero."""
    wide = x if x.shape[-2] <= x.shape[-1] else x.mT
    y = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y if wide is x else y.mT
