"""Bodies of ``multipart/form-data`` (RFC 7578): the fields of a form, and files that are read while they are sent."""

from __future__ import annotations

import contextlib
import hashlib
import mimetypes
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, Iterable, Iterator, List, NamedTuple, Optional, Protocol, Sequence, Tuple, Union

from urllib3.fields import RequestField
from urllib3.filepost import choose_boundary

from .._files import open_regular, whole_content
from .._values import FileFault
from ..errors import ConfigurationError

__all__ = ["MAX_JOINED_BYTES", "FormData", "OpenedForm", "OpenedPiece"]

_BLOCK_BYTES = 64 * 1024
MAX_JOINED_BYTES = 1024 * 1024
"""Size up to which a body is one bytes object, which signers and mocks know what to do with."""

_FILES_KINDS = "files must be a dict of field names and parts, or a list of such pairs"
_KINDS = "a path (pathlib.Path), bytes, a binary file, or a tuple (filename, content[, content type])"


class FormPart(NamedTuple):
    """One file of a form.

    Attributes:
        name: of its field.
        filename: as the server is told.
        content: bytes, or the path of a file that is read each time it is sent.
        media_type: its content type.
    """

    name: str
    filename: str
    content: Union[bytes, str]
    media_type: str

    def head(self) -> bytes:
        """Return what stands before the content."""
        field = RequestField(self.name, b"", filename=self.filename)
        field.make_multipart(content_type=self.media_type)
        return field.render_headers().encode("utf-8")


class FormData:
    """A form that is sent as ``multipart/form-data``; its files on disk are opened at each attempt.

    Args:
        fields: names and texts.
        files: names and parts: a path, bytes, a binary file (read at once, from its beginning where it can be rewound),
            or a tuple (filename, content[, content type]).

    Attributes:
        content_type: the value of that header.

    Raises:
        TypeError: a part is of no such kind.
        ConfigurationError: a file is missing or cannot be read.
    """

    def __init__(self, fields: Sequence[Tuple[str, str]], files: Any) -> None:
        self._fields = list(fields)
        self._parts = [_part_of(name, part) for name, part in _pairs_of(files)]
        self._boundary = str(choose_boundary())
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        for part in self._parts:
            if isinstance(part.content, str):
                _opened(part.content).close()

    def renamed(self, model: str) -> FormData:
        """Return the same form with another model."""
        return self.with_fields([(name, model if name == "model" else text) for name, text in self._fields])

    def with_fields(self, fields: Sequence[Tuple[str, str]]) -> FormData:
        """Return the same files with other fields."""
        other = FormData.__new__(FormData)
        other.__dict__.update(self.__dict__)
        other._fields = list(fields)
        return other

    def digest(self) -> bytes:
        """Return a digest of the fields and of the content of the files, wherever these are kept.

        Raises:
            ConfigurationError: a file is missing or cannot be read.
        """
        digest = hashlib.blake2b(repr(self._fields).encode("utf-8"), digest_size=16)
        for part in self._parts:
            digest.update(repr((part.name, part.media_type)).encode("utf-8"))
            with contextlib.closing(OpenedForm(iter([part.content]))) as content:
                for block in content:
                    digest.update(block)
        return digest.digest()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Union[bytes, OpenedForm]]:
        """Lend the whole form where it is small, otherwise one to be read.

        Raises:
            ConfigurationError: a file is missing or cannot be read.
        """
        with contextlib.closing(OpenedForm(self._pieces())) as form:
            yield form if len(form) > MAX_JOINED_BYTES else form.read()

    def _pieces(self) -> Iterator[Union[bytes, str]]:
        """Yield what the form consists of: bytes, and paths of files."""
        mark = f"--{self._boundary}\r\n".encode()
        for name, text in self._fields:
            field = RequestField(name, b"")
            field.make_multipart()
            yield mark + field.render_headers().encode("utf-8") + text.encode("utf-8") + b"\r\n"
        for part in self._parts:
            yield mark + part.head()
            yield part.content
            yield b"\r\n"
        yield f"--{self._boundary}--\r\n".encode()


class OpenedForm:
    """A form to be read from its beginning to its end, once or more often.

    ``requests`` takes it for a stream, as it can be iterated over, and its length for the Content-Length.

    Args:
        pieces: bytes, paths of files, and what is read like one, in order.

    Raises:
        ConfigurationError: a file is missing or cannot be read.
    """

    def __init__(self, pieces: Iterable[Union[bytes, str, OpenedPiece]]) -> None:
        self._pieces: List[Union[bytes, OpenedPiece]] = []
        self._place = self._offset = 0
        try:
            for piece in pieces:
                self._pieces.append(_OpenedFile(piece) if isinstance(piece, str) else piece)
        except BaseException:
            self.close()
            raise
        self._size = sum(len(piece) for piece in self._pieces)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(_BLOCK_BYTES):
            yield block

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes: at most ``size``, or all; none at the end.

        Raises:
            FileFault: a file has become shorter, or cannot be read any more.
        """
        kept: List[bytes] = []
        left = self._size if size is None or size < 0 else size
        try:
            while left and self._place < len(self._pieces):
                block = self._next(left)
                kept.append(block)
                left -= len(block)
        except ConfigurationError as error:
            raise FileFault(error) from error
        return b"".join(kept)

    def _next(self, size: int) -> bytes:
        piece = self._pieces[self._place]
        block = piece[self._offset : self._offset + size] if isinstance(piece, bytes) else piece.at(self._offset, size)
        self._offset += len(block)
        if self._offset >= len(piece):
            self._place, self._offset = self._place + 1, 0
        return block

    def rewind(self) -> None:
        """Begin again."""
        self._place = self._offset = 0

    def close(self) -> None:
        """Close the files."""
        for piece in self._pieces:
            if not isinstance(piece, bytes):
                piece.close()


class OpenedPiece(Protocol):
    """A part of a body that is read while it is sent; its length is known."""

    def __len__(self) -> int: ...

    def at(self, offset: int, size: int) -> bytes:
        """Return bytes from there, at least one of those that the length announces.

        Raises:
            ConfigurationError: they cannot be read.
        """

    def close(self) -> None:
        """Close its file."""


class _OpenedFile:
    """A file of a form; its size is that at its opening."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = _opened(path)
        self._size = os.fstat(self._file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def at(self, offset: int, size: int) -> bytes:
        """Return bytes from there, at least one of those that the size announces."""
        try:
            self._file.seek(offset)
            block = self._file.read(min(size, self._size - offset))
        except OSError as error:
            raise ConfigurationError(f"cannot read {self._path}: {error.strerror or error}") from error
        if not block and self._size:
            raise ConfigurationError(f"{self._path} has become shorter while it was being sent: send it again")
        return block

    def close(self) -> None:
        self._file.close()


def _opened(path: str) -> BinaryIO:
    try:
        return open_regular(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"files: cannot read {path}: {reason}") from error


def _pairs_of(files: Any) -> List[Tuple[str, Any]]:
    pairs = list(files.items()) if isinstance(files, Mapping) else files
    if not isinstance(pairs, (list, tuple)):
        raise TypeError(f"{_FILES_KINDS}, got a {type(files).__name__}")
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(f"{_FILES_KINDS}, got a {type(pair).__name__} in it")
    return list(pairs)


def _part_of(name: str, part: Any) -> FormPart:
    filename: Optional[str] = None
    media_type: Optional[str] = None
    content = part
    if isinstance(part, tuple):
        if len(part) not in (2, 3) or not isinstance(part[0], str):
            raise TypeError(
                f"files: a tuple must be (filename, content[, content type]), got {len(part)} parts for {name!r}"
            )
        filename, content = part[:2]
        media_type = part[2] if len(part) == 3 else None
    content, own_name = _content_of(name, content)
    filename = filename or own_name or name
    guessed = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return FormPart(name, filename, content, media_type or guessed)


def _content_of(name: str, content: Any) -> Tuple[Union[bytes, str], Optional[str]]:
    """Return the content of a part, or the path of its file, and its name where it has one."""
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content), None
    if isinstance(content, os.PathLike):
        path = os.fsdecode(os.fspath(content))
        return path, os.path.basename(path)
    if not hasattr(content, "read"):
        what = "could be a path or a content" if isinstance(content, str) else f"is a {type(content).__name__}"
        raise TypeError(f"files: the part {name!r} {what}: pass {_KINDS}")
    data = whole_content(content)
    if not isinstance(data, bytes):
        raise TypeError(f"files: the file of {name!r} gives text: open it in binary mode, open(path, 'rb')")
    own_name = getattr(content, "name", None)
    return data, os.path.basename(own_name) if isinstance(own_name, str) else None
