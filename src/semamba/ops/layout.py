"""How tensors must lie in memory for the kernels."""

from __future__ import annotations

from torch import Tensor


def rows(tensor: Tensor) -> Tensor:
    """Unit stride along the last axis, by a copy if need be; other strides stay, the kernels take them as they are."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()
