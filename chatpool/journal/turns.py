"""A lock for many threads that want it often and hold it for microseconds."""

from __future__ import annotations

import threading
import time
from typing import Callable

__all__ = ["Turns"]

_AGAIN_AFTER = 0.0001  # seconds


class Turns:
    """One thread at a time, as a context manager.

    A thread that waits in ``Lock.acquire`` is given the lock first and the interpreter's lock much later; in between
    nobody can use it, so that once there is a queue it never ends.  Here whoever finds the lock taken, which is
    rare, looks again a moment later, and so only a running thread ever holds it.
    """

    def __init__(self) -> None:
        lock = threading.Lock()
        # Bound once, for whoever cannot afford another call.
        self.take: Callable[[bool], bool] = lock.acquire
        self.give = lock.release

    def wait(self) -> None:
        """Take it, after ``take(False)`` has failed."""
        take = self.take
        while not take(False):
            time.sleep(_AGAIN_AFTER)

    def __enter__(self) -> None:
        if not self.take(False):
            self.wait()

    def __exit__(self, *_: object) -> None:
        self.give()
