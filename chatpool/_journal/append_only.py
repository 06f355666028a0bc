"""Files that are there, and whole, after a crash.

A journal that several processes of one run write to.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import threading
from typing import BinaryIO, Callable, Iterator, NamedTuple, Optional, Tuple

from .._locks import new_lock
from .record import Prefix, Record, encode_record, prefix_of

__all__ = ["NOFOLLOW", "AppendOnly", "Found", "SharedAppender", "Tail", "has_words", "own_target", "replacing"]


_SYNC_EVERY = 1.0  # seconds
_MOST_TRIES = 5  # of a write that takes only a part

_data_sync = getattr(os, "fdatasync", os.fsync)

# O_BINARY: Windows would change the ends of lines.
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags of every file that is opened to be written."""


@functools.cache
def _quick_write() -> Callable[[int, bytes, int], int]:
    """``write(2)`` that keeps the interpreter's lock.

    A write to the page cache takes microseconds; giving the lock up for it means to wait until all threads that
    want it have had it, with everybody who writes next waiting behind: a third of the throughput of 32 workers.
    """
    try:
        import ctypes  # not before it is needed: most programs keep no journal

        write = ctypes.PyDLL(None, use_errno=True).write
    except (ImportError, AttributeError, OSError, TypeError):  # Windows, and interpreters without ctypes
        return lambda descriptor, data, size: os.write(descriptor, data)
    write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    write.restype = ctypes.c_ssize_t

    return write


def _raise_error() -> None:
    """After a write that returned a negative number."""
    import ctypes

    number = ctypes.get_errno()
    if number != errno.EINTR:
        raise OSError(number, os.strerror(number))


_KEPT = "what was finished before is kept, and the same call goes on from there once that is put right"


def _trouble(error: OSError, path: str) -> OSError:
    """``error`` in words that say which file, and that nothing is lost."""
    return OSError(error.errno, f"cannot write {path}: {error.strerror or error}; {_KEPT}")


def has_words(error: OSError) -> bool:
    """Recognise an error that says already which file could not be written."""
    return (error.strerror or "").endswith(_KEPT)


def own_target(path: str) -> str:
    """Return where ``path`` leads to, if it is a link of the user's own; otherwise ``path``.

    The rule of Linux' ``fs.protected_symlinks``, in every folder: a link counts that is the user's, root's, or of the
    owner of the folder that it is in.

    Raises:
        PermissionError: somebody else has put the link there.
    """
    if not os.path.islink(path):
        return path
    if hasattr(os, "geteuid"):
        folder = os.path.dirname(os.path.abspath(path))
        if os.lstat(path).st_uid not in (os.geteuid(), 0, os.stat(folder).st_uid):
            raise PermissionError(errno.EPERM, "it is a link that another user has made", path)
    return os.path.realpath(path)


class AppendOnly:
    """A file that only grows.  What was appended survives the death of the process at once, and that of the
    machine once it is synced.

    Args:
        path: the file, or a link of the user's own to it; it is made if it is not there.
        shared: whether other processes append to it at the same time: then what is half written stays there, as
            the end of the file may be somebody else's by now, and is written once more, whole.

    Attributes:
        size: where what is appended next will stand, unless the file is shared.
    """

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self.path = path
        self._is_shared = shared
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | NOFOLLOW
        self._descriptor: Optional[int] = os.open(own_target(path), flags, 0o666)
        self.size = os.fstat(self._descriptor).st_size
        self._write = _quick_write()
        self._failed: Optional[OSError] = None
        self._guard = new_lock()  # nothing is synced that has been closed
        self._closing = threading.Event()
        self._due: Optional[threading.Thread] = None

    def append(self, data: bytes) -> None:
        """Write ``data``, all or nothing.

        Raises:
            OSError: it could not be written, or what was written before could not be synced.
        """
        assert self._descriptor is not None
        if self._failed is not None:
            raise _trouble(self._failed, self.path)
        size = len(data)
        written = tries = 0
        try:
            while written < size:
                step = self._write(self._descriptor, data[written:] if written else data, size - written)
                if step < 0:
                    _raise_error()
                    continue
                if step == size or not self._is_shared:
                    written += step
                if step == 0 or written == 0:
                    tries += 1
                    if tries >= _MOST_TRIES:
                        raise OSError(errno.EIO, f"only {step} of {size} bytes can be written at once")
        except OSError as error:
            if not self._is_shared:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self.size)
            raise _trouble(error, self.path) from error
        self.size += size

    def position(self) -> int:
        """Where what was appended last ends, also in a file that is shared; nobody else may be appending here."""
        assert self._descriptor is not None
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    @property
    def is_due(self) -> bool:
        """Whether it is going to be synced anyway."""
        return self._due is not None

    def sync_soon(self) -> None:
        """Have what was appended on the disk within about a second."""
        if self._due is None:
            # A thread that lives for a second: whoever forgets to close the file leaves none behind.
            self._due = threading.Thread(target=self._sync_soon, name="chatpool-sync", daemon=True)
            self._due.start()

    def truncate(self, size: int) -> None:
        """Cut the file to its first ``size`` bytes."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, size)
        self.size = size

    def sync(self) -> None:
        """Have everything on the disk before returning."""
        assert self._descriptor is not None
        try:
            _data_sync(self._descriptor)
        except OSError as error:
            raise _trouble(error, self.path) from error

    def _sync_soon(self) -> None:
        self._closing.wait(_SYNC_EVERY)
        self._due = None  # what is appended from now on is for the next one
        with self._guard:
            if self._descriptor is None:
                return
            try:
                _data_sync(self._descriptor)
            except OSError as error:
                self._failed = error

    def close(self) -> None:
        """Sync and close; a second call does nothing.

        Raises:
            OSError: it could not be synced.
        """
        self._closing.set()
        with self._guard:
            if self._descriptor is None:
                return
            try:
                self.sync()
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends without an error: by write, fsync, rename.

    A link of the user's own stays one: the file that it leads to is replaced.

    Raises:
        OSError: it could not be written; ``path`` is as it was.
    """
    made = ""
    try:
        target = own_target(path)
        descriptor = _fresh(f"{target}.new", target)
        made = f"{target}.new"
        with open(descriptor, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, target)
        _sync_folder(target)
    except BaseException as error:
        if made:
            with contextlib.suppress(OSError):
                os.unlink(made)
        if isinstance(error, OSError) and not has_words(error):
            raise _trouble(error, path) from error
        raise


def _fresh(path: str, like: str) -> int:
    """Open a new file, which nobody else has made and which is open to no more people than ``like`` is."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # left by a run that was killed; or a link, which is not to be followed
    old: Optional[os.stat_result] = None
    with contextlib.suppress(FileNotFoundError):
        old = os.stat(like)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o666 if old is None else 0o600)
    if old is not None:
        with contextlib.suppress(OSError):  # a file system without owners or modes
            _make_like(descriptor, old)
    return descriptor


def _make_like(descriptor: int, old: os.stat_result) -> None:
    if not hasattr(os, "fchown"):  # Windows: new files have the rights of their folder
        return
    mode = stat.S_IMODE(old.st_mode)
    with contextlib.suppress(OSError):
        os.fchown(descriptor, old.st_uid if os.geteuid() == 0 else -1, old.st_gid)
    if os.fstat(descriptor).st_gid != old.st_gid:  # what was for that group is not for ours
        mode &= ~stat.S_IRWXG
    os.fchmod(descriptor, mode)


def _sync_folder(path: str) -> None:
    """A new name is on the disk when its folder is; systems that cannot open folders sync them themselves."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Found(NamedTuple):
    """A record in the file: where its line starts, what it is of, and the line."""

    start: int
    prefix: Prefix
    line: bytes


class SharedAppender:
    """Appends records to a journal that another process has opened, and has told this one to write to.

    Every record begins on a line of its own, whatever a process that died or found the disk full has left before.

    Args:
        path: the journal.
    """

    def __init__(self, path: str) -> None:
        self._file = AppendOnly(path, shared=True)
        self._turn = new_lock()

    def append(self, record: Record) -> Tuple[int, int]:
        """Write a record; when this returns it survives the death of the process.

        Returns:
            Where its line starts, and how long that is, in bytes.

        Raises:
            OSError: it could not be written.
        """
        line = encode_record(record)
        with self._turn:
            self._file.append(b"\n" + line)
            end = self._file.position()
        self._file.sync_soon()
        return end - len(line), len(line)

    def close(self) -> None:
        """Sync and close."""
        self._file.close()


class Tail:
    """Reads what others append to a file.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = open(path, "rb", buffering=1 << 18)  # noqa: SIM115 - closed by close()

    def end(self) -> int:
        """The size of the file: what is appended from now on begins there or later."""
        return os.fstat(self._file.fileno()).st_size

    def at(self, start: int, length: int) -> Optional[Found]:
        """The record whose line is said to be there; None if it is not."""
        self._file.seek(start)
        line = self._file.read(length)
        prefix = prefix_of(line) if len(line) == length else None
        return None if prefix is None else Found(start, prefix, line)

    def since(self, start: int) -> Iterator[Found]:
        """Every record whose line starts there or later."""
        self._file.seek(start)
        while True:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                return
            prefix = prefix_of(line)
            if prefix is not None:
                yield Found(start, prefix, line)
            start += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
