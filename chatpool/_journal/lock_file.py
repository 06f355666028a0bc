"""Lock of a journal: one run at a time writes to it, and a run that dies leaves it unlocked."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import stat
from typing import Optional

from .._file_lock import lock_file, unlock_file
from .._files import SAFE_OPEN_FLAGS, resolve_own_link
from .._redaction import printable
from ..errors import ConfigurationError, JournalBusyError

__all__ = ["PROBE_SECONDS", "FileLock", "busy_error", "is_locked"]

logger = logging.getLogger("chatpool")

_MAX_HOLDER_BYTES = 200
PROBE_SECONDS = 0.2  # for which a program that watches the run may hold the lock, at most


class FileLock:
    """Lock of a file by another one beside it, held from :meth:`acquire` to :meth:`release`.

    Args:
        locked_path: the file that is locked, or a link to it. The lock file beside it is made, and removed at the end.
        is_needed: whether it is an error where the file system has no locks, as some shared ones; otherwise it is a
            warning, and nothing keeps other processes away.
    """

    def __init__(self, locked_path: str, *, is_needed: bool = False) -> None:
        self._locked_path = locked_path
        self._is_needed = is_needed
        self._path = ""
        self._descriptor: Optional[int] = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            JournalBusyError: another process, or this one, holds it.
            ConfigurationError: the path of the lock file is no plain file, or the lock is needed and the file system
                has none.
            OSError: the file cannot be made.
        """
        target = resolve_own_link(self._locked_path)  # one lock for the file, under any name
        self._path = _path_of(target)
        while True:
            descriptor = self._open(target)
            if descriptor is None:
                continue
            try:
                self._lock(descriptor)
                if self._is_current(descriptor):  # its last holder may just have removed it
                    _write_holder(descriptor)
                    self._descriptor = descriptor
                    return
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _open(self, target: str) -> Optional[int]:
        """Open the lock file, made if need be; None if its last holder has removed it meanwhile.

        Links, and further names of a file elsewhere, are refused: others may have put them there to have it written to.
        """
        mode = 0o666
        with contextlib.suppress(OSError):
            mode &= os.stat(target).st_mode
        with contextlib.suppress(FileExistsError):
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | SAFE_OPEN_FLAGS, mode)
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(self._path)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise ConfigurationError(f"{self._path} is a link, or no plain file: remove it")
            return os.open(self._path, os.O_RDWR | SAFE_OPEN_FLAGS)
        return None

    def _lock(self, descriptor: int) -> None:
        try:
            is_taken = lock_file(descriptor, timeout_seconds=PROBE_SECONDS)
        except OSError as error:
            self._handle_missing_locks(error)
            return
        if not is_taken:
            raise busy_error(self._locked_path, _read_holder(descriptor))

    def _handle_missing_locks(self, error: OSError) -> None:
        problem = error.strerror or str(error)
        if self._is_needed:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            raise ConfigurationError(
                f"{self._locked_path} cannot be locked ({problem}), so nothing would keep a second run from sending "
                "every row again: choose a place on another file system, or run without a lock and see to it that "
                "there is no second one (lock=False, --no-lock)"
            ) from error
        logger.warning(
            "%s cannot be locked (%s): make sure that no other process uses it, or rows are sent and paid twice",
            self._locked_path,
            problem,
        )

    def _is_current(self, descriptor: int) -> bool:
        try:
            status = os.fstat(descriptor)
            return os.path.samestat(status, os.lstat(self._path)) and status.st_nlink <= 1
        except FileNotFoundError:
            return False

    @property
    def descriptor(self) -> Optional[int]:
        """The open lock file, for child processes: the lock is held as long as one of them has it open."""
        return self._descriptor

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # Windows does not remove what is open
            os.unlink(self._path)
        os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]  # checked in the line before


def _path_of(locked_path: str) -> str:
    return f"{locked_path}.lock"


def is_locked(path: str) -> Optional[bool]:
    """Return whether a process holds the lock of a file; None where that cannot be found out.

    Nothing is made or changed.
    """
    flags = os.O_RDWR if os.name == "nt" else os.O_RDONLY | os.O_NONBLOCK
    try:
        descriptor = os.open(_path_of(os.path.realpath(path)), flags | SAFE_OPEN_FLAGS)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        if not lock_file(descriptor):
            return True
        unlock_file(descriptor)
        return False
    except OSError:
        return None
    finally:
        os.close(descriptor)


def busy_error(path: str, holder: str) -> JournalBusyError:
    """Return the error of a file, or a folder, that another process uses: "process 12 on host", as it stands there."""
    holder = printable(holder)  # it is from a file
    known = re.fullmatch(r"process (\d{1,18}) on (\S+)", holder)
    return JournalBusyError(
        f"{path} is in use by {holder}: wait until that run has ended, or choose another output",
        path=path,
        pid=None if known is None else int(known[1]),
        host=None if known is None else known[2],
    )


def _write_holder(descriptor: int) -> None:
    """Write who holds the lock, for people; if that fails, the lock is held all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())


def _read_holder(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, _MAX_HOLDER_BYTES).decode("utf-8", "replace") or "another process"
    except OSError:
        return "another process"
