"""semamba: speech enhancement with Mamba state-space models.

>>> import semamba
>>> enhancer = semamba.load()  # the default model, shipped with the package
>>> better = enhancer(noisy, sample_rate=48000)  # numpy or torch, (n,) or (channels, n)

Nothing slow is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semamba.errors import SemambaError
    from semamba.inference.enhance import Enhancer, enhance, load
    from semamba.inference.files import enhance_file
    from semamba.inference.stream import Streamer

__version__ = "0.1.0"
__all__ = ["Enhancer", "SemambaError", "Streamer", "__version__", "enhance", "enhance_file", "load"]

# Public name -> the module that holds it.
_HOMES = {
    "Enhancer": "semamba.inference.enhance",
    "SemambaError": "semamba.errors",
    "Streamer": "semamba.inference.stream",
    "enhance": "semamba.inference.enhance",
    "enhance_file": "semamba.inference.files",
    "load": "semamba.inference.enhance",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'semamba' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
