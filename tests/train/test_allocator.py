"""The settings of a training process, in a process of its own since they stay."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHECK = """
import torch
from semamba.train.allocator import prepare_cpu

worked = prepare_cpu(threads=0, parallel=torch.get_num_threads())
assert torch.get_num_threads() == 1
assert (torch.tensor([1e-30]) * 1e-10).item() == 0.0, "denormals are not flushed"
big = [torch.ones(3_000_000) for _ in range(4)]
addresses = {t.data_ptr() for t in big}
del big
again = [torch.ones(3_000_000) for _ in range(4)]
assert {t.data_ptr() for t in again} & addresses, "freed buffers went back to the kernel"
print("worked" if worked else "left alone")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is tuned with glibc only")
def test_the_heap_keeps_big_buffers_and_denormals_are_flushed() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "worked"
