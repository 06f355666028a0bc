"""A limit that the processes of one user on one host share, through a file.

The file is changed under its lock, and opened so that no other user can interfere.  :class:`PrivateScope` is a scope
for the processes of one run; its files go with it.
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
from .gcra import LimitStatus, Rates, ReserveResult, State, pack, unpack
from .shared_limit import Unavailable

__all__ = ["FileBackend", "PrivateScope", "file_for", "locked", "slug"]


_LOCK_TIMEOUT_SECONDS = 1.0  # only a process that was stopped holds the lock as long
_MAX_STATE_BYTES = 16384  # more than a state ever takes
_MAX_READABLE_CHARS = 40  # of a name, in that of its file
_OPTIONAL_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FileBackend:
    """The state in a file, changed under its lock.

    Times in it are those of the monotonic clock, which on Linux, macOS and Windows all processes of a host share,
    containers included.

    Args:
        path: the file; made if need be.
        now: the host's monotonic clock.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.display_name = f"the file {path}"
        self._path = path
        self._now = now
        self._last_state: Optional[State] = None  # when this process used it last
        self._reset()

    def _reset(self) -> None:
        self._lock = new_lock()  # the lock of the file belongs to the process, not to the thread
        self._descriptor: Optional[int] = None

    def reserve(self, rates: Rates, *, requests: float, tokens: float, max_wait: float, sharer: float) -> ReserveResult:
        with self._state() as state:
            return gcra.reserve(
                state,
                self._now(),
                rates,
                requests=requests,
                tokens=tokens,
                max_wait=max_wait,
                sharer=sharer,
            )

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        with self._state() as state:
            gcra.correct(state, self._now(), rates, at=at, tokens=tokens)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        with self._state() as state:
            gcra.pause(state, self._now(), rates, seconds=seconds)

    def status(self, rates: Rates) -> LimitStatus:
        with self._state() as state:
            return gcra.status(state, self._now(), rates)

    def close(self) -> None:
        with self._lock:
            self._close_file()

    def after_fork_in_child(self) -> None:
        inherited = self._descriptor
        self._reset()  # with the parent's descriptor the two would hold one lock together
        if inherited is not None:
            os.close(inherited)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self._close_file()

    @contextlib.contextmanager
    def _state(self) -> Iterator[State]:
        """Lend the state, which no other process can change meanwhile, and write it back at the end."""
        with self._lock:
            descriptor = self._current_file()
            try:
                with locked(descriptor):
                    # In a file that was removed while in use, go on from what this process knows.
                    state = _read(descriptor) or self._last_state or State()
                    yield state
                    _write(descriptor, state)
                    self._last_state = state
            except OSError as error:
                self._close_file()
                raise Unavailable(f"{self._path} cannot be used ({error.strerror or error})") from error

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


def _read(descriptor: int) -> Optional[State]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return unpack(os.read(descriptor, _MAX_STATE_BYTES))


def _write(descriptor: int, state: State) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = pack(state)
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
