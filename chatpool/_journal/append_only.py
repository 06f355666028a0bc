"""Files that are whole after a crash.

:class:`AppendOnly` only grows, :func:`atomic_replace` writes a file anew.  Processes that write to one journal append
to it with a :class:`SharedAppender`; the one that holds its lock reads with a :class:`Tail`.
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

__all__ = [
    "SAFE_OPEN_FLAGS",
    "AppendOnly",
    "SharedAppender",
    "StoredRecord",
    "Tail",
    "atomic_replace",
    "is_write_error",
    "resolve_own_link",
]


_SYNC_SECONDS = 1.0  # between two writes to the disk
_MAX_TRIES = 5  # of a write that takes only a part

_data_sync = getattr(os, "fdatasync", os.fsync)

# O_BINARY: Windows would change the ends of lines.
SAFE_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags of every file that is opened to be written."""

_NOTHING_LOST = "what was finished before is kept, and the same call goes on from there once that is put right"


class AppendOnly:
    """A file that only grows.

    Appended data survives the death of the process at once, and that of the machine once it is synced.

    Args:
        path: the file, or a link of the user's own to it; it is made if it is not there.
        shared: whether other processes append to it at the same time: then half-written data stays there, as the end
            of the file may be another process's by now, and is written once more, whole.

    Attributes:
        size: where the next data will stand, unless the file is shared.
    """

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self.path = path
        self._is_shared = shared
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | SAFE_OPEN_FLAGS
        self._descriptor: Optional[int] = os.open(resolve_own_link(path), flags, 0o666)
        self.size = os.fstat(self._descriptor).st_size
        self._write = _gil_holding_write()
        self._failed: Optional[OSError] = None
        self._sync_lock = new_lock()  # so that no closed file is synced
        self._closing = threading.Event()
        self._sync_thread: Optional[threading.Thread] = None

    def append(self, data: bytes) -> None:
        """Write ``data``, all or nothing.

        Raises:
            OSError: it could not be written, or earlier data could not be synced.
        """
        assert self._descriptor is not None
        if self._failed is not None:
            raise _write_error(self._failed, self.path)
        size = len(data)
        written = tries = 0
        try:
            while written < size:
                taken = self._write(self._descriptor, data[written:] if written else data, size - written)
                if taken < 0:
                    _raise_errno()
                    continue
                if taken == size or not self._is_shared:
                    written += taken
                if taken == 0 or written == 0:
                    tries += 1
                    if tries >= _MAX_TRIES:
                        raise OSError(errno.EIO, f"only {taken} of {size} bytes can be written at once")
        except OSError as error:
            if not self._is_shared:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self.size)
            raise _write_error(error, self.path) from error
        self.size += size

    def position(self) -> int:
        """Return where the last appended data ends, also in a shared file; no other thread may be appending here."""
        assert self._descriptor is not None
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    @property
    def is_sync_scheduled(self) -> bool:
        """True while a sync is scheduled."""
        return self._sync_thread is not None

    def schedule_sync(self) -> None:
        """Write appended data to the disk within about a second."""
        if self._sync_thread is None:
            # A thread that lives for a second: a file that is never closed leaves none behind.
            self._sync_thread = threading.Thread(target=self._sync_later, name="chatpool-sync", daemon=True)
            self._sync_thread.start()

    def truncate(self, size: int) -> None:
        """Cut the file to its first ``size`` bytes."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, size)
        self.size = size

    def sync(self) -> None:
        """Write everything to the disk before returning."""
        assert self._descriptor is not None
        try:
            _data_sync(self._descriptor)
        except OSError as error:
            raise _write_error(error, self.path) from error

    def _sync_later(self) -> None:
        self._closing.wait(_SYNC_SECONDS)
        self._sync_thread = None  # data that is appended from now on is for the next one
        with self._sync_lock:
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
        with self._sync_lock:
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


class SharedAppender:
    """Appends records to a journal that another process has opened, and has told this one to write to.

    Every record begins on a new line, as a process that died or found the disk full may have left a part of one.

    Args:
        path: the journal.
    """

    def __init__(self, path: str) -> None:
        self._file = AppendOnly(path, shared=True)
        self._lock = new_lock()

    def append(self, record: Record) -> Tuple[int, int]:
        """Write a record; when this returns it survives the death of the process.

        Returns:
            The start and the length of its line, in bytes.

        Raises:
            OSError: it could not be written.
        """
        line = encode_record(record)
        with self._lock:
            self._file.append(b"\n" + line)
            end = self._file.position()
        self._file.schedule_sync()
        return end - len(line), len(line)

    def close(self) -> None:
        """Sync and close."""
        self._file.close()


class StoredRecord(NamedTuple):
    """A record in the file: where its line starts, its prefix, and the line."""

    start: int
    prefix: Prefix
    line: bytes


class Tail:
    """Reader of the records that other processes append to a file.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = open(path, "rb", buffering=1 << 18)  # noqa: SIM115 - closed by close()

    def end(self) -> int:
        """Return the size of the file: records that are appended from now on begin there or later."""
        return os.fstat(self._file.fileno()).st_size

    def at(self, start: int, length: int) -> Optional[StoredRecord]:
        """Return the record whose line is said to be there; None if it is not."""
        self._file.seek(start)
        line = self._file.read(length)
        prefix = prefix_of(line) if len(line) == length else None
        return None if prefix is None else StoredRecord(start, prefix, line)

    def since(self, start: int) -> Iterator[StoredRecord]:
        """Yield every record whose line starts there or later."""
        self._file.seek(start)
        while True:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                return
            prefix = prefix_of(line)
            if prefix is not None:
                yield StoredRecord(start, prefix, line)
            start += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def atomic_replace(path: str, *, like: Optional[str] = None, is_synced: bool = True) -> Iterator[BinaryIO]:
    """Lend a new file, which replaces ``path`` when the block ends without an error: by write, fsync, rename.

    A link of the user's own stays one: its target is replaced.

    Args:
        path: the file.
        like: the file whose permissions the new one gets. Default: ``path``.
        is_synced: whether it has to survive the death of the machine.

    Raises:
        OSError: it could not be written; ``path`` is as it was.
    """
    new_path = ""
    try:
        target = resolve_own_link(path)
        descriptor = _create_file(f"{target}.new", like or target)
        new_path = f"{target}.new"
        with open(descriptor, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        os.replace(new_path, target)
        if is_synced:
            _sync_folder(target)
    except BaseException as error:
        if new_path:
            with contextlib.suppress(OSError):
                os.unlink(new_path)
        if isinstance(error, OSError) and not is_write_error(error):
            raise _write_error(error, path) from error
        raise


def _create_file(path: str, like: str) -> int:
    """Create a file, which no other process has made, with no more permissions than those of ``like``."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # left by a run that was killed; or a link, which must not be followed
    old: Optional[os.stat_result] = None
    with contextlib.suppress(FileNotFoundError):
        old = os.stat(like)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_OPEN_FLAGS, 0o666 if old is None else 0o600)
    if old is not None:
        with contextlib.suppress(OSError):  # a file system without owners or modes
            _copy_permissions(descriptor, old)
    return descriptor


def _copy_permissions(descriptor: int, old: os.stat_result) -> None:
    if not hasattr(os, "fchown"):  # Windows: new files have the permissions of their folder
        return
    mode = stat.S_IMODE(old.st_mode)
    with contextlib.suppress(OSError):
        os.fchown(descriptor, old.st_uid if os.geteuid() == 0 else -1, old.st_gid)
    if os.fstat(descriptor).st_gid != old.st_gid:  # permissions of that group are not for ours
        mode &= ~stat.S_IRWXG
    os.fchmod(descriptor, mode)


def _sync_folder(path: str) -> None:
    """Write a new name to the disk, as a part of its folder; systems that cannot open folders sync them themselves."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def resolve_own_link(path: str) -> str:
    """Return the target of ``path``, if it is a link of the user's own; otherwise ``path``.

    The rule of Linux' ``fs.protected_symlinks``, in every folder: a link counts that is the user's, root's, or of the
    owner of the folder that it is in.

    Raises:
        PermissionError: another user has put the link there.
    """
    if not os.path.islink(path):
        return path
    if hasattr(os, "geteuid"):
        folder = os.path.dirname(os.path.abspath(path))
        if os.lstat(path).st_uid not in (os.geteuid(), 0, os.stat(folder).st_uid):
            raise PermissionError(errno.EPERM, "it is a link that another user has made", path)
    return os.path.realpath(path)


def _write_error(error: OSError, path: str) -> OSError:
    """Return ``error`` with a message that says which file, and that nothing is lost."""
    return OSError(error.errno, f"cannot write {path}: {error.strerror or error}; {_NOTHING_LOST}")


def is_write_error(error: OSError) -> bool:
    """Return whether the message of ``error`` says already which file could not be written."""
    return (error.strerror or "").endswith(_NOTHING_LOST)


@functools.cache
def _gil_holding_write() -> Callable[[int, bytes, int], int]:
    """Return a ``write(2)`` that keeps the interpreter's lock (the GIL).

    A write to the page cache takes microseconds.  To release the GIL for it is to wait until all threads that want it
    have had it, while the next writers wait for this one: that costs a third of the throughput of 32 workers.
    """
    try:
        import ctypes  # not before it is needed: most programs keep no journal

        write = ctypes.PyDLL(None, use_errno=True).write
    except (ImportError, AttributeError, OSError, TypeError):  # Windows, and interpreters without ctypes
        return lambda descriptor, data, size: os.write(descriptor, data)
    write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    write.restype = ctypes.c_ssize_t

    return write


def _raise_errno() -> None:
    """Raise the error of a write that returned a negative number, unless a signal interrupted it."""
    import ctypes

    number = ctypes.get_errno()
    if number != errno.EINTR:
        raise OSError(number, os.strerror(number))
