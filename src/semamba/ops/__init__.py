"""Selective scan, Mamba block and layers along frequency: one signature each, several kernels, chosen in one place."""

from semamba.ops.block import BlockWeights, MambaState, mamba_block, mamba_pair
from semamba.ops.dispatch import backend_for, selective_scan, using
from semamba.ops.frequency import frequency_attention, frequency_conv

__all__ = [
    "BlockWeights",
    "MambaState",
    "backend_for",
    "frequency_attention",
    "frequency_conv",
    "mamba_block",
    "mamba_pair",
    "selective_scan",
    "using",
]
