"""A journal that several processes of one run write to."""

from __future__ import annotations

import os
from typing import BinaryIO, Iterator, NamedTuple, Optional, Tuple

from ..locks import new_lock
from .durable import AppendOnly
from .record import Prefix, Record, encode, prefix_of

__all__ = ["Found", "SharedAppender", "Tail"]


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
        line = encode(record)
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
