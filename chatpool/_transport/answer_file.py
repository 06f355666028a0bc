"""The file that the body of a good answer goes to."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Iterable, Optional, Type

from .._files import NewFile, write_error
from .._values import FileFault
from ..errors import ConfigurationError

__all__ = ["AnswerFile"]

_HEAD_BYTES = 64 * 1024


class AnswerFile:
    """Takes the body of an answer, and replaces a file with it once the answer is found to be good.

    A context manager: what was not put in place is discarded at the end of the block.

    Args:
        path: the file.

    Raises:
        FileFault: the folder does not exist, or the path is that of a folder.
    """

    def __init__(self, path: Any) -> None:
        self._path = os.fsdecode(os.fspath(path))
        self._new: Optional[NewFile] = None
        folder = os.path.dirname(os.path.abspath(self._path))
        if not os.path.isdir(folder):
            raise self._fault(f"there is no folder {folder}")
        if os.path.isdir(self._path):
            raise self._fault("it is a folder; add a file name")

    @property
    def has_body(self) -> bool:
        """True once a body was written."""
        return self._new is not None

    def write(self, pieces: Iterable[bytes]) -> bytes:
        """Write a body; return its beginning, at most 64 KiB.

        Raises:
            FileFault: it cannot be written.
            Exception: that of ``pieces``.
        """
        head = b""
        self._discard()
        try:
            self._new = NewFile(self._path)
        except OSError as error:
            raise self._error(error) from error
        for piece in pieces:
            head += piece[: _HEAD_BYTES - len(head)]
            try:
                self._new.file.write(piece)
            except OSError as error:
                raise self._error(error) from error
        return head

    def put_in_place(self) -> None:
        """Replace the file with what was written.

        Raises:
            FileFault: it cannot be written.
        """
        if self._new is None:
            self.write(())
        assert self._new is not None
        try:
            self._new.put_in_place()
        except OSError as error:
            raise self._error(error) from error

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        new, self._new = self._new, None
        if new is not None:
            new.discard()

    def _fault(self, reason: str) -> FileFault:
        return FileFault(ConfigurationError(f"cannot write {self._path}: {reason}"))

    def _error(self, error: OSError) -> FileFault:
        return FileFault(ConfigurationError(str(write_error(error, self._path).strerror)))
