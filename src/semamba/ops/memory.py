"""Big buffers for a pass without gradients: inside `reused_buffers` memory that is free again is taken again.

PyTorch gives every big buffer back to the operating system when it is freed, and the next one is paid for with a page
fault for each 4 KiB, in a virtual machine up to 10 microseconds each: half the time of the advanced model. Here a pass
faults once for the most that it holds at a time, on huge pages where the system has them, and keeps nothing afterwards.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor

_SMALL = 2**20  # bytes; below, the allocator's own cache does well
_HUGE_PAGE = 2**21
_MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", 14)


class _Pool(threading.local):
    """The free and the used buffers of the pass that this thread is in; None outside of one."""

    buffers: list[Tensor] | None = None


_pool = _Pool()


@contextmanager
def reused_buffers(wanted: bool = True) -> Iterator[None]:
    """`empty` shares buffers inside the `with` block; nested blocks share with the outermost one."""
    if not wanted or _pool.buffers is not None or not hasattr(torch._C, "_storage_Use_Count"):
        yield
        return
    _pool.buffers = []
    try:
        yield
    finally:
        _pool.buffers = None


def fresh(shape: Sequence[int]) -> Tensor:
    """Memory as the kernels write it, float32 on the CPU, whatever type and device are the defaults of the process."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def empty(*shape: int) -> Tensor:
    """`fresh`; inside `reused_buffers` on memory that no tensor uses any more."""
    count = prod(shape)
    if _pool.buffers is None or 4 * count < _SMALL:
        return fresh(shape)
    free = [buffer for buffer in _pool.buffers if buffer.numel() >= count and _users(buffer) == 1]
    if free:
        buffer = min(free, key=torch.numel)
    else:
        buffer = fresh((count,))
        _advise_huge_pages(buffer)
        _pool.buffers.append(buffer)
    # A tensor of its own on the same storage: a view would keep the buffer's version and count as its alias.
    return fresh((0,)).set_(buffer.untyped_storage())[:count].view(shape)


def _users(buffer: Tensor) -> int:
    """Tensors on the buffer's storage: one is the buffer itself."""
    storage = buffer.untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata)) - 1  # type: ignore[attr-defined]  # less `storage`


def _advise_huge_pages(buffer: Tensor) -> None:
    """Ask for huge pages in the middle of the buffer, before it is touched. Failure changes nothing."""
    start = -(-buffer.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
    length = (buffer.data_ptr() + 4 * buffer.numel() - start) // _HUGE_PAGE * _HUGE_PAGE
    if length <= 0:
        return
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):  # no such call on this system
        return
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    advise(start, length, _MADV_HUGEPAGE)
