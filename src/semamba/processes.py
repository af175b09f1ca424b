"""Worker processes: they leave signals to their parent, and end with it. Nothing heavy is imported here."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def follow_parent() -> None:
    """The initializer of a pool's workers: Ctrl-C is answered by the parent alone.

    A worker whose parent was killed would wait for work for ever, since it holds both ends of the queue itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
