"""The machine that figures belong to, and the memory of a process as its kernel counts it."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_SELF = Path("/proc/self")


def describe(threads: int, device: str) -> dict[str, Any]:
    """Processor, GPU, kernels and versions, and the load before the start, which says what else was running."""
    import torch

    from semamba.ops import backend_for, cpu

    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "kernels": f"C++, {cpu.kernel_name()}" if backend_for(torch.zeros(1)) == "cpu" else "PyTorch",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def available_bytes() -> int | None:
    """Memory that could be had without swapping; None where the system does not say."""
    info = Path("/proc/meminfo")
    return _field(info, "MemAvailable") if info.exists() else None


def resident_bytes(process: int | None = None) -> int | None:
    """Resident memory of a process (None: this one) now; None where the system does not say or it has ended."""
    status = (_SELF if process is None else Path(f"/proc/{process}")) / "status"
    try:
        return _field(status, "VmRSS")
    except (OSError, ValueError):
        return None


class PeakMemory:
    """The most that this process held at any time, above what it holds at the moment of construction.

    Linux counts the peak of a process from its start and may be told to start again. `ru_maxrss` would not do there: it
    survives exec, so that a process begins with the peak of the one that started it. Elsewhere it is all there is.
    """

    def __init__(self) -> None:
        with suppress(OSError):  # where this fails, a peak before this moment counts too, if it was higher
            (_SELF / "clear_refs").write_text("5")
        self.base = resident_bytes() or _lifetime_peak()

    def total(self) -> int:
        """Highest resident memory of the process, bytes."""
        try:
            return _field(_SELF / "status", "VmHWM")
        except (OSError, ValueError):
            return _lifetime_peak()

    def above_base(self) -> int:
        return max(0, self.total() - self.base)


def _lifetime_peak() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def _field(path: Path, name: str) -> int:
    """Bytes of a line `name:  123 kB`; ValueError when it is not there, as in a process that has ended."""
    for line in path.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{path} has no {name}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
