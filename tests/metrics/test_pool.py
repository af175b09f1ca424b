"""A pool of workers ends with the process that made it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from semamba.metrics.pool import new_pool

PARENT = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from semamba.processes import follow_parent
from tests.metrics.test_pool import own_number

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=follow_parent)
    print(pool.submit(own_number).result(), flush=True)
    time.sleep(60)
"""


def own_number() -> int:
    return os.getpid()


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{number}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"  # dead, and nobody asked how


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="tells dead from waiting by /proc")
def test_workers_of_a_killed_process_end() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.kill()
        parent.wait()
        limit = time.monotonic() + 10
        while alive(worker) and time.monotonic() < limit:
            time.sleep(0.05)
        assert not alive(worker)


def test_a_worker_is_another_process_of_one_thread() -> None:
    with new_pool(1) as pool:
        assert pool.submit(own_number).result() != os.getpid()
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
