"""A lock for many threads that want it often and hold it for microseconds."""

from __future__ import annotations

import threading
import time

__all__ = ["Turns"]

_AGAIN_AFTER = 0.0001  # seconds


class Turns:
    """One thread at a time, as a context manager.

    A thread that waits in ``Lock.acquire`` is given the lock first and the interpreter's lock much later; in between
    nobody can use it, so that once there is a queue it never ends.  Here whoever finds the lock taken, which is
    rare, looks again a moment later, and so only a running thread ever holds it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        acquire = self._lock.acquire
        while not acquire(False):
            time.sleep(_AGAIN_AFTER)

    def __exit__(self, *_: object) -> None:
        self._lock.release()
