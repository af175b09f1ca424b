"""Selective scan: one signature, several kernels, chosen in one place."""

from semamba.ops.reference import selective_scan

__all__ = ["selective_scan"]
