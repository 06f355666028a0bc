"""Request bodies: encoded JSON, and bodies that are read at each attempt, of forms and of attachments."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Sequence, Union

from .._values import LazyBody
from .._wire import encode, form_fields
from .._wire.attachments import AttachedContent, encoded_length
from ..errors import ConfigurationError
from ..types import ChatRequest
from .multipart import MAX_JOINED_BYTES, FormData, OpenedForm, OpenedPiece

__all__ = ["Encoded", "identity_of", "payload_of", "with_files_of"]

# Nobody else can know it, so that no text of a prompt can look like a mark.
_MARK = secrets.token_hex(16)
_MARKS = re.compile(rf'"{_MARK}:(\d+)"'.encode("ascii"))
_MAX_DEPTH = 50

Body = Union[bytes, LazyBody]


class _AttachedBody:
    """JSON with attachments in it: with marks, in whose places the content is put when it is sent.

    Args:
        skeleton: the JSON with marks.
        contents: the contents, in the order of the marks.
    """

    __slots__ = ("_contents", "_skeleton")

    content_type = "application/json"

    def __init__(self, skeleton: bytes, contents: Sequence[AttachedContent]) -> None:
        self._skeleton = skeleton
        self._contents = tuple(contents)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Optional[_AttachedBody]:
        """Return the encoded form of a body, None if nothing is attached in it.

        Raises:
            TypeError, ConfigurationError: as :func:`encode`; or a file cannot be read.
        """
        contents: List[AttachedContent] = []
        skeleton = _marked(body, contents, 0)
        for content in contents:
            content.attachment.size()  # raises if it cannot be read
        return cls(encode(skeleton), contents) if contents else None

    def renamed(self, model: str) -> _AttachedBody:
        """Return the same body with another model."""
        return _AttachedBody(encode({**json.loads(self._skeleton), "model": model}), self._contents)

    def digest(self) -> bytes:
        """Return the body with the digests of the contents in their places.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        pieces = self._pieces()
        return b"".join(
            piece if isinstance(piece, bytes) else f'"{piece.identity()}"'.encode("ascii") for piece in pieces
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[Union[bytes, OpenedForm]]:
        """Lend the whole body where it is small, otherwise one to be read.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        with contextlib.closing(OpenedForm(self._opened_pieces())) as body:
            yield body if len(body) > MAX_JOINED_BYTES else body.read()

    def _opened_pieces(self) -> Iterator[Union[bytes, OpenedPiece]]:
        for piece in self._pieces():
            if isinstance(piece, bytes):
                yield piece
            elif piece.is_text:
                yield encode({"": piece.text()})[4:-1]
            else:
                yield f'"{piece.prefix}'.encode("ascii")
                yield _Base64(piece)
                yield b'"'

    def _pieces(self) -> Iterator[Union[bytes, AttachedContent]]:
        for place, piece in enumerate(_MARKS.split(self._skeleton)):
            yield self._contents[int(piece)] if place % 2 else piece


class _Base64:
    """The content of an attachment in base64; its size is that at its opening.

    The file is open while it is read: a body may have hundreds.
    """

    def __init__(self, content: AttachedContent) -> None:
        self._attachment = content.attachment
        self._size = content.attachment.size()
        self._file: Optional[BinaryIO] = None

    def __len__(self) -> int:
        return encoded_length(self._size)

    def at(self, offset: int, size: int) -> bytes:
        """Return bytes from there, at least one of those that the length announces.

        Raises:
            ConfigurationError: the file cannot be read, or has another size than before.
        """
        if self._file is None:
            self._file = self._attachment.open()
        first, end = offset // 4 * 3, min(-(-(offset + size) // 4) * 3, self._size)
        try:
            self._file.seek(first)
            data = self._file.read(end - first)
        except OSError as error:
            raise ConfigurationError(f"{self._attachment} cannot be read: {error.strerror or error}") from error
        if len(data) < end - first:
            raise ConfigurationError(f"{self._attachment} has become shorter while it was sent: send it again")
        if end == self._size:
            self.close()
        return base64.b64encode(data)[offset % 4 : offset % 4 + size]

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _marked(value: Any, contents: List[AttachedContent], depth: int) -> Any:
    """Return ``value`` with marks in the place of contents, which are added to ``contents``."""
    if isinstance(value, AttachedContent):
        contents.append(value)
        return f"{_MARK}:{len(contents) - 1}"
    if depth > _MAX_DEPTH:  # encode() says that it is nested too deeply, or circular
        return value
    if isinstance(value, Mapping):
        return {name: _marked(part, contents, depth + 1) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_marked(part, contents, depth + 1) for part in value]
    return value


class Encoded(Dict[str, Any]):
    """A body that is encoded already and must not change any more.

    Attributes:
        payload: its encoding.
    """

    __slots__ = ("payload",)

    def __init__(self, body: Mapping[str, Any], payload: Body) -> None:
        super().__init__(body)
        self.payload = payload


def payload_of(request: ChatRequest) -> Body:
    """Return the body of a request, encoded; with files, one that reads them at each attempt.

    Raises:
        TypeError: it cannot be sent as JSON, or a file is of no kind that can be sent.
        ConfigurationError: a number in it cannot be sent as JSON, or a file cannot be read.
    """
    body = request.body
    if request.files:
        return FormData(form_fields(body), request.files)
    if type(body) is Encoded:
        return body.payload
    try:
        return encode(body)
    except TypeError as error:
        problem = error
    attached = _AttachedBody.of(body)
    if attached is None:
        raise problem
    return attached


def with_files_of(payload: Body, request: ChatRequest) -> Body:
    """Return the body of a request with the files that ``payload`` has, a form; raises as :func:`payload_of`."""
    return payload.with_fields(form_fields(request.body)) if isinstance(payload, FormData) else payload_of(request)


def identity_of(payload: Body) -> bytes:
    """Return what tells a body from others: what is sent, with digests of the content in the place of files.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    return payload if isinstance(payload, bytes) else payload.digest()
