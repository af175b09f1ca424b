"""The one error class whose message is meant for the person at the keyboard, and how a lack of memory shows itself."""

from __future__ import annotations


class SemambaError(ValueError):
    """One clear line: what went wrong, in which file or key, and what to do about it."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a library says with this that memory ran out; torch's allocator on the CPU has no class for it."""
    by_class = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return by_class or "can't allocate memory" in str(error).lower()
