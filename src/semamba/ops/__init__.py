"""Selective scan, Mamba block, layers of features: one signature each, several kernels, chosen in one place."""

from semamba.ops.block import BlockWeights, MambaState, fused_pair, mamba_block, mamba_pair
from semamba.ops.dispatch import backend_for, fused_backend, selective_scan, using
from semamba.ops.features import can_join, dense_layer, instance_norm, line_layer, prelu
from semamba.ops.frequency import frequency_attention, frequency_conv
from semamba.ops.memory import reused_buffers

__all__ = [
    "BlockWeights",
    "MambaState",
    "backend_for",
    "can_join",
    "dense_layer",
    "frequency_attention",
    "frequency_conv",
    "fused_backend",
    "fused_pair",
    "instance_norm",
    "line_layer",
    "mamba_block",
    "mamba_pair",
    "prelu",
    "reused_buffers",
    "selective_scan",
    "using",
]
