"""Selective scan and Mamba block: one signature each, several kernels, chosen in one place."""

from semamba.ops.block import BlockWeights, MambaState, mamba_block
from semamba.ops.dispatch import backend_for, selective_scan, using

__all__ = ["BlockWeights", "MambaState", "backend_for", "mamba_block", "selective_scan", "using"]
