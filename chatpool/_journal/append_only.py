"""Files that only grow, and are whole after a crash.

One process writes with :class:`AppendOnly`.  Processes that write to one journal append to it with a
:class:`SharedAppender`; the one that holds its lock reads with a :class:`Tail`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from typing import BinaryIO, Callable, Iterator, NamedTuple, Optional, Tuple

from .._files import SAFE_OPEN_FLAGS, resolve_own_link, write_error
from .._locks import new_lock
from .record import Prefix, Record, encode_record, prefix_of

__all__ = ["AppendOnly", "SharedAppender", "StoredRecord", "Tail"]


_SYNC_SECONDS = 1.0  # between two writes to the disk
_MAX_TRIES = 5  # of a write that takes only a part

_data_sync = getattr(os, "fdatasync", os.fsync)


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
            raise write_error(self._failed, self.path)
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
            raise write_error(error, self.path) from error
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
            raise write_error(error, self.path) from error

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
