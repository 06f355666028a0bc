"""A lock on an open file that is held for microseconds, and is the system's to give back when its holder dies."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from typing import Iterator

from .backend import Unavailable

__all__ = ["locked"]

_PATIENCE = 1.0  # seconds; only a process that was stopped holds it as long
_SHORTEST_NAP, _LONGEST_NAP = 0.0001, 0.002


@contextlib.contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Hold the lock of the file.

    Raises:
        Unavailable: another process has held it for too long.
    """
    # In plain time and by asking again: a lock that blocks could not be given up.
    ends, nap = time.monotonic() + _PATIENCE, _SHORTEST_NAP
    while not _try(descriptor):
        if time.monotonic() > ends:
            raise Unavailable(f"another process has held its lock for {_PATIENCE:g} s; is one stopped?")
        time.sleep(nap * random.uniform(0.5, 1))
        nap = min(2 * nap, _LONGEST_NAP)
    try:
        yield
    finally:
        _release(descriptor)


if sys.platform == "win32":
    import msvcrt

    _BEYOND = 1 << 30  # Windows' locks keep others from reading: the byte that is locked is one that is not there

    def _try(descriptor: int) -> bool:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _release(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # a file system that has no locks
            raise Unavailable(f"the file cannot be locked ({error.strerror})") from error
        return True

    def _release(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
