"""Lock on an open file, which the system releases when the process that holds it dies, however it dies.

It belongs to the open file and not to the thread: two threads that share a descriptor share the lock.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import time

__all__ = ["lock_file", "unlock_file"]

_HELD_ERRORS = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.0001, 0.002


def lock_file(descriptor: int, *, timeout_seconds: float = 0.0) -> bool:
    """Lock the file for this process alone.

    Args:
        descriptor: the file, open for writing.
        timeout_seconds: how long to wait for another holder; 0 tries once.

    Returns:
        False if it is still locked by another holder when the time is over.

    Raises:
        OSError: the file system has no locks.
    """
    # In real time and by trying again: a lock that blocks in the kernel could not be given up.
    deadline, pause = time.monotonic() + timeout_seconds, _MIN_PAUSE_SECONDS
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _HELD_ERRORS:
            return False
        raise
    return True


if sys.platform == "win32":
    import msvcrt

    # Windows keeps others from reading a locked byte: this one is far beyond the end of the file.
    _LOCKED_BYTE = 1 << 30

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

    def unlock_file(descriptor: int) -> None:
        """Release the lock."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_file(descriptor: int) -> None:
        """Release the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
