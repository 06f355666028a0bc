"""A limit that the processes of one user on one host share, through a file.

Where the files of shared limits are, and how they are opened so that nobody else can interfere.

A lock on an open file that is held for microseconds, and is the system's to give back when its holder dies.

A scope for the processes of one run, gone with it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, Optional

from .._file_lock import lock_file, unlock_file
from .._locks import new_lock
from . import gcra
from .gcra import LimitStatus, Rates, SlotReservation, State, pack, unpack
from .shared_limit import Unavailable

__all__ = ["FileBackend", "PrivateScope", "file_for", "locked", "open_safely", "slug"]


_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_LONGEST = 40


def slug(name: str) -> str:
    """``name`` as a part of a file's name: readable, and different for different names."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub('[^A-Za-z0-9-]+', '_', name)[:_LONGEST]}-{digest}"


def file_for(name: str) -> Path:
    """The file of the limit ``name``, one for each start of the machine: the clock in it begins anew with that."""
    return _folder() / f"{slug(name)}-{_boot()}.quota"


def _folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home())
    else:
        # Not XDG_RUNTIME_DIR: cron jobs and services have none, and would keep to themselves.
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "chatpool" / "quota"


def _boot() -> str:
    """Names the start of this machine, and with it the machine: a home directory may be on several."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except (OSError, ValueError):
        return "host"


def open_safely(path: Path) -> int:
    """Open the file, made if need be, for this user only.

    Raises:
        Unavailable: it cannot be opened, or is no plain file, or others may have a hand in it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(path.parent)
        descriptor = os.open(path, _OPEN, 0o600)
    except OSError as error:
        raise Unavailable(f"{path} cannot be opened ({error.strerror or error})") from error
    try:
        _check(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_folder(folder: Path) -> None:
    if hasattr(os, "getuid"):
        found = os.stat(folder)
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unavailable(f"other users may change what is in {folder}; it should be yours, with mode 0700")


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Unavailable(f"{path} is not a plain file")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise Unavailable(f"{path} belongs to another user")
    if found.st_nlink > 1:
        raise Unavailable(f"{path} is another name of a file that is elsewhere, too")


_LOCK_TIMEOUT_SECONDS = 1.0  # only a process that was stopped holds the lock as long


@contextlib.contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Hold the lock of the file.

    Raises:
        Unavailable: another process has held it for too long, or the file system has no locks.
    """
    try:
        is_locked = lock_file(descriptor, timeout_seconds=_LOCK_TIMEOUT_SECONDS)
    except OSError as error:
        raise Unavailable(f"the file cannot be locked ({error.strerror})") from error
    if not is_locked:
        raise Unavailable(f"another process has held its lock for {_LOCK_TIMEOUT_SECONDS:g} s; is one stopped?")
    try:
        yield
    finally:
        unlock_file(descriptor)


_LARGEST = 16384  # bytes; more than a state ever takes


class FileBackend:
    """The state in a file, changed under its lock.

    Times in it are those of the monotonic clock, which on Linux, macOS and Windows all processes of a host share,
    containers included.

    Args:
        path: the file; made if need be.
        now: the host's monotonic clock.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.shown = f"the file {path}"
        self._path = path
        self._now = now
        self._known: Optional[State] = None  # as of this process' last look
        self._open_anew()

    def _open_anew(self) -> None:
        self._lock = new_lock()  # a lock of the file is the process', not the thread's
        self._descriptor: Optional[int] = None

    def reserve(
        self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float
    ) -> SlotReservation:
        with self._state() as state:
            return gcra.reserve(
                state,
                self._now(),
                rates,
                requests=requests,
                tokens=tokens,
                patience=patience,
                sharer=sharer,
            )

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        with self._state() as state:
            gcra.correct(state, self._now(), rates, at=at, tokens=tokens)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        with self._state() as state:
            gcra.pause(state, self._now(), rates, seconds=seconds)

    def standing(self, rates: Rates) -> LimitStatus:
        with self._state() as state:
            return gcra.status(state, self._now(), rates)

    def close(self) -> None:
        with self._lock:
            self._let_go()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextlib.contextmanager
    def _state(self) -> Iterator[State]:
        """The state, nobody else's to change meanwhile, and written back at the end."""
        with self._lock:
            descriptor = self._current()
            try:
                with locked(descriptor):
                    # In a file that was removed while in use, go on from what this process knows.
                    state = _read(descriptor) or self._known or State()
                    yield state
                    _write(descriptor, state)
                    self._known = state
            except OSError as error:
                self._let_go()
                raise Unavailable(f"{self._path} cannot be used ({error.strerror or error})") from error

    def after_fork_in_child(self) -> None:
        inherited = self._descriptor
        self._open_anew()  # with the parent's descriptor the two would hold one lock together
        if inherited is not None:
            os.close(inherited)

    def _current(self) -> int:
        """The descriptor of the file that is there now: one that was removed is nobody else's any more."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                    return self._descriptor
            self._let_go()
        self._descriptor = open_safely(self._path)
        return self._descriptor


def _read(descriptor: int) -> Optional[State]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return unpack(os.read(descriptor, _LARGEST))


def _write(descriptor: int, state: State) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = pack(state)
    while data:
        written = os.write(descriptor, data)
        if not written:
            raise OSError(errno.EIO, "nothing can be written to it")
        data = data[written:]


class PrivateScope:
    """A scope that nobody else has.

    Attributes:
        name: for ``Limits(scope=)``; None where this user cannot have files for it.
    """

    def __init__(self) -> None:
        name = f"run-{secrets.token_hex(8)}"
        self._folder = file_for(name).parent
        self.name: Optional[str] = name
        try:
            os.close(open_safely(file_for(f"{name}\n")))
        except Unavailable:
            self.name = None

    def close(self) -> None:
        """Remove its files."""
        if self.name is not None:
            for path in self._folder.glob(f"{self.name}_*"):
                with contextlib.suppress(OSError):
                    path.unlink()
