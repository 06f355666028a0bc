"""A journal that several processes of one run write to."""

from __future__ import annotations

from typing import BinaryIO, Iterator, Tuple

from .durable import AppendOnly
from .record import Prefix, Record, encode, prefix_of

__all__ = ["SharedAppender", "Tail"]


class SharedAppender:
    """Appends records to a journal that another process has opened, and has told this one to write to.

    Every record begins on a line of its own, whatever a process that died or found the disk full has left before.

    Args:
        path: the journal.
    """

    def __init__(self, path: str) -> None:
        self._file = AppendOnly(path, shared=True)

    def append(self, record: Record) -> None:
        """Write a record; when this returns it survives the death of the process.

        Raises:
            OSError: it could not be written.
        """
        self._file.append(b"\n" + encode(record))
        self._file.sync_soon()

    def close(self) -> None:
        """Sync and close."""
        self._file.close()


class Tail:
    """Reads what is appended to a file, as it comes.

    Args:
        path: the file.
        start: where to begin.
    """

    def __init__(self, path: str, start: int) -> None:
        self._file: BinaryIO = open(path, "rb", buffering=1 << 18)  # noqa: SIM115 - closed by close()
        self._start = start
        self._file.seek(start)

    def lines(self) -> Iterator[Tuple[int, Prefix, bytes]]:
        """Where each new record starts, what it is of, and its line; one that is not finished comes the next time."""
        while True:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                self._file.seek(self._start)
                return
            start, self._start = self._start, self._start + len(line)
            prefix = prefix_of(line)
            if prefix is not None:
                yield start, prefix, line

    def close(self) -> None:
        """Close the file."""
        self._file.close()
