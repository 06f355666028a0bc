"""One process at a time: a lock that the system gives back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import sys
from typing import Optional

from ..errors import ConfigurationError
from .append_only import NOFOLLOW, own_target

__all__ = ["FileLock"]

logger = logging.getLogger("chatpool")

_TAKEN = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})
_BEYOND = 1 << 30  # Windows' locks keep others from reading: the byte that is locked is one that is not there


class FileLock:
    """A lock in a file of its own, held from :meth:`acquire` to :meth:`release`.

    Args:
        what: the file that is locked, or a link to it. The lock file is beside it: it is made, and removed at the end.
        is_needed: whether it is an error where the file system has no locks, as some that are shared; otherwise it is
            a warning, and nothing keeps others away.
    """

    def __init__(self, what: str, *, is_needed: bool = False) -> None:
        self._what = what
        self._is_needed = is_needed
        self._path = ""
        self._descriptor: Optional[int] = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ConfigurationError: another process, or this one, holds it, something else stands in its place, or it is
                needed and cannot be had.
            OSError: the file cannot be made.
        """
        target = own_target(self._what)  # one lock for the file, by whatever name
        self._path = f"{target}.lock"
        while True:
            descriptor = self._open(target)
            if descriptor is None:
                continue
            try:
                self._lock(descriptor)
                if self._is_current(descriptor):  # not removed by its last holder while we waited for nothing
                    _sign(descriptor)
                    self._descriptor = descriptor
                    return
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _open(self, target: str) -> Optional[int]:
        """Open the lock file, made if need be; None if its last holder has removed it meanwhile.

        Nothing is written to what somebody may have put there: a link, another name of a file that is elsewhere, too.
        """
        mode = 0o666
        with contextlib.suppress(OSError):
            mode &= os.stat(target).st_mode
        with contextlib.suppress(FileExistsError):
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, mode)
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self._path)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise ConfigurationError(f"{self._path} is a link, or no plain file: remove it")
            return os.open(self._path, os.O_RDWR | NOFOLLOW)
        return None

    def _lock(self, descriptor: int) -> None:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _TAKEN:
                raise ConfigurationError(
                    f"{self._what} is in use by {_holder(descriptor)}: wait until that run has ended, or choose "
                    "another output"
                ) from None
            words = error.strerror or str(error)
            if self._is_needed:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
                raise ConfigurationError(
                    f"{self._what} cannot be locked ({words}), so nothing would keep a second run from sending every "
                    "row again: choose a place on another file system, or run without a lock and see to it that there "
                    "is no second one (lock=False, --no-lock)"
                ) from error
            logger.warning(
                "%s cannot be locked (%s): make sure that no other process uses it, or rows are sent and paid twice",
                self._what,
                words,
            )

    def _is_current(self, descriptor: int) -> bool:
        try:
            found = os.fstat(descriptor)
            return os.path.samestat(found, os.lstat(self._path)) and found.st_nlink <= 1
        except FileNotFoundError:
            return False

    @property
    def descriptor(self) -> Optional[int]:
        """The open lock file, for child processes: the lock is held as long as one of them has it open."""
        return self._descriptor

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # Windows does not remove what is open
            os.unlink(self._path)
        os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]  # checked in the line before


def _sign(descriptor: int) -> None:
    """Say who holds it, for people: if that cannot be written, the lock is held all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())


def _holder(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
    except OSError:
        return "another process"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
