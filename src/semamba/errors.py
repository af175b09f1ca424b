"""The one error class whose message is meant for the person at the keyboard."""

from __future__ import annotations


class SemambaError(ValueError):
    """One clear line: what went wrong, in which file or key, and what to do about it."""
