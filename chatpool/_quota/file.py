"""A limit that the processes of one user on one host share, through a file.

The file is changed under its lock, and opened so that no other user can interfere.  :class:`PrivateScope` is a scope
for the processes of one run; its files go with it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any, Callable, Generic, Iterable, Iterator, Optional, TypeVar

from .._file_lock import lock_file, unlock_file
from .._locks import new_lock
from . import gcra
from .day import DayBook, DayCharge, HostTime, host_time, pack_day, reserve_in_day, unpack_day
from .gcra import LimitStatus, Rates, ReserveResult, State
from .shared_limit import Unavailable

__all__ = ["FileBackend", "PrivateScope", "day_file_for", "file_for", "locked", "slug"]

logger = logging.getLogger("chatpool")

_T = TypeVar("_T")

_LOCK_TIMEOUT_SECONDS = 1.0  # only a process that was stopped holds the lock as long
_MAX_STATE_BYTES = 16384  # more than a state ever takes
_MAX_READABLE_CHARS = 40  # of a name, in that of its file
_OPTIONAL_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FileBackend:
    """The state in a file, changed under its lock; limits per day are counted in a file of their own.

    Times in the first are those of the monotonic clock, which on Linux, macOS and Windows all processes of a host
    share, containers included.

    Args:
        path: the file; made if need be.
        now: the host's monotonic clock.
        day_path: the file of the day's count, which outlives a restart of the host; None where nothing is limited per
            day.
        host_now: the host's time, for the day.
    """

    def __init__(
        self,
        path: Path,
        now: Callable[[], float] = time.monotonic,
        *,
        day_path: Optional[Path] = None,
        host_now: Optional[Callable[[], HostTime]] = None,
    ) -> None:
        self.display_name = f"the file {path}"
        self._now = now
        self._host_now = host_now or partial(host_time, zlib.crc32(_boot_id().encode("ascii", "replace")))
        self._minute = _StateFile(path, gcra.unpack, gcra.pack, State)
        self._day = None if day_path is None else _StateFile(day_path, unpack_day, pack_day, DayBook)

    def reserve(self, rates: Rates, *, requests: float, tokens: float, max_wait: float, sharer: float) -> ReserveResult:
        ask = {"requests": requests, "tokens": tokens, "max_wait": max_wait, "sharer": sharer}
        if self._day is None or rates.day is None:
            with self._minute.state() as state:
                return gcra.reserve(state, self._now(), rates, **ask)
        with self._day.state() as book, self._minute.state() as state:
            return reserve_in_day(state, book.window, self._now(), book.now(self._host_now()), rates, **ask)

    def correct(self, rates: Rates, *, at: float, tokens: float, day: Optional[DayCharge] = None) -> None:
        if tokens:
            with self._minute.state() as state:
                gcra.correct(state, self._now(), rates, at=at, tokens=tokens)
        if day is not None and self._day is not None:
            with self._day.state() as book:
                book.window.advance(book.now(self._host_now()))
                book.window.correct(*day)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        with self._minute.state() as state:
            gcra.pause(state, self._now(), rates, seconds=seconds)

    def status(self, rates: Rates) -> LimitStatus:
        with self._minute.state() as state:
            return gcra.status(state, self._now(), rates)

    def close(self) -> None:
        for file in self._files():
            file.close()

    def after_fork_in_child(self) -> None:
        for file in self._files():
            file.after_fork_in_child()

    def _files(self) -> Iterable[_StateFile[Any]]:
        return (self._minute,) if self._day is None else (self._minute, self._day)


class _StateFile(Generic[_T]):
    """A file that holds a state, changed under its lock.

    Args:
        path: the file; made if need be.
        unpack: makes the state of its bytes, None of bytes that hold none.
        pack: makes bytes of the state.
        empty: makes the state of a new file.
    """

    def __init__(
        self,
        path: Path,
        unpack: Callable[[bytes], Optional[_T]],
        pack: Callable[[_T], bytes],
        empty: Callable[[], _T],
    ) -> None:
        self._path = path
        self._unpack = unpack
        self._pack = pack
        self._empty = empty
        self._last_state: Optional[_T] = None  # when this process used it last
        self._reset()

    def _reset(self) -> None:
        self._lock = new_lock()  # the lock of the file belongs to the process, not to the thread
        self._descriptor: Optional[int] = None

    @contextlib.contextmanager
    def state(self) -> Iterator[_T]:
        """Lend the state, which no other process can change meanwhile, and write it back at the end."""
        with self._lock:
            descriptor = self._current_file()
            try:
                with locked(descriptor):
                    state = self._read(descriptor)
                    yield state
                    _write(descriptor, self._pack(state))
                    self._last_state = state
            except OSError as error:
                self._close_file()
                raise Unavailable(f"{self._path} cannot be used ({error.strerror or error})") from error

    def _read(self, descriptor: int) -> _T:
        os.lseek(descriptor, 0, os.SEEK_SET)
        data = os.read(descriptor, _MAX_STATE_BYTES)
        # In a file that was removed while in use, go on from what this process knows.
        state = self._unpack(data) or self._last_state
        if state is None and data:
            logger.warning("shared limit: %s is damaged; it begins anew, as if nothing had been sent", self._path)
        return self._empty() if state is None else state

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close_file()

    def after_fork_in_child(self) -> None:
        """Share no descriptor with the parent."""
        inherited = self._descriptor
        self._reset()  # with the parent's descriptor the two would hold one lock together
        if inherited is not None:
            os.close(inherited)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self._close_file()

    def _current_file(self) -> int:
        """Return the descriptor of the file that is there now; a file that was removed is shared with none."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                    return self._descriptor
            self._close_file()
        self._descriptor = _open_safely(self._path)
        return self._descriptor

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


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


def _write(descriptor: int, data: bytes) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    while data:
        written = os.write(descriptor, data)
        if not written:
            raise OSError(errno.EIO, "nothing can be written to it")
        data = data[written:]


def _open_safely(path: Path) -> int:
    """Open the file, made if need be, for this user only.

    Raises:
        Unavailable: it cannot be opened, is no plain file, or other users can change it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPTIONAL_FLAGS, 0o600)
    except OSError as error:
        raise Unavailable(f"{path} cannot be opened ({error.strerror or error})") from error
    try:
        _check_file(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_folder(folder: Path) -> None:
    if hasattr(os, "getuid"):
        status = os.stat(folder)
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unavailable(f"other users may change what is in {folder}; it should be yours, with mode 0700")


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unavailable(f"{path} is not a plain file")
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise Unavailable(f"{path} belongs to another user")
    if status.st_nlink > 1:
        raise Unavailable(f"{path} is another name of a file that is elsewhere, too")


def file_for(name: str) -> Path:
    """Return the file of the limit ``name``: another one after each boot, which begins the monotonic clock anew."""
    return _folder() / f"{slug(name)}-{_boot_id()}.quota"


def day_file_for(name: str) -> Path:
    """Return the file of the day's count of the limit ``name``, the same one after a boot."""
    return _folder() / f"{slug(name)}.day"


def slug(name: str) -> str:
    """Return ``name`` as a part of a file's name: readable, and different for different names."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub('[^A-Za-z0-9-]+', '_', name)[:_MAX_READABLE_CHARS]}-{digest}"


def _folder() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home())
    else:
        # Not XDG_RUNTIME_DIR: cron jobs and services have none, and would keep to themselves.
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "chatpool" / "quota"


def _boot_id() -> str:
    """Return the id of this boot of this machine: a home directory may be on several machines."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except (OSError, ValueError):
        return "host"


class PrivateScope:
    """Scope that no other process knows, unless it is told the name.

    Attributes:
        name: for ``Limits(scope=)``; None where this user cannot have files for it.
    """

    def __init__(self) -> None:
        name = f"run-{secrets.token_hex(8)}"
        self._folder = file_for(name).parent
        self.name: Optional[str] = name
        try:
            os.close(_open_safely(file_for(f"{name}\n")))
        except Unavailable:
            self.name = None

    def close(self) -> None:
        """Remove its files."""
        if self.name is not None:
            for path in self._folder.glob(f"{self.name}_*"):
                with contextlib.suppress(OSError):
                    path.unlink()
