"""Encoded request bodies: bytes, or for one with attachments a payload that is put together when it is sent."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from .attachments import Content
from .codec import encode

__all__ = ["AttachedPayload", "Encoded", "Payload", "identity_of", "payload_of"]


# Nobody else can know it, so that no text of a prompt can look like a mark.
_MARK = secrets.token_hex(16)
_MARKS = re.compile(rf'"{_MARK}:(\d+)"'.encode("ascii"))
_MAX_DEPTH = 50

Payload = Union[bytes, "AttachedPayload"]


class AttachedPayload:
    """A body with attachments: JSON with marks in it, in whose place the content is put when it is sent.

    Args:
        skeleton: the JSON with marks.
        contents: the contents, in the order of the marks.
    """

    __slots__ = ("_contents", "_skeleton")

    content_type = "application/json"

    def __init__(self, skeleton: bytes, contents: Sequence[Content]) -> None:
        self._skeleton = skeleton
        self._contents = tuple(contents)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Optional[AttachedPayload]:
        """Return the encoded form of a body, None if nothing is attached in it.

        Raises:
            TypeError, ConfigurationError: as :func:`encode`; or a file cannot be read.
        """
        contents: List[Content] = []
        marked = _marked(body, contents, 0)
        return cls(encode(marked), [content.measured() for content in contents]) if contents else None

    def changed(self, **fields: Any) -> AttachedPayload:
        """Return the same body with other values of some fields."""
        return AttachedPayload(encode({**json.loads(self._skeleton), **fields}), self._contents)

    def identity(self) -> bytes:
        """Return the body with the digests of the contents in their places; raises as :meth:`Attachment.open`."""
        return b"".join(
            piece if isinstance(piece, bytes) else f'"{piece.identity()}"'.encode("ascii") for piece in self._pieces()
        )

    def read(self) -> bytes:
        """Return the whole body as it is sent.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        whole: List[bytes] = []
        for piece in self._pieces():
            if isinstance(piece, bytes):
                whole.append(piece)
            else:
                whole += [b'"', *piece.measured().chunks(), b'"']
        return b"".join(whole)

    def _pieces(self) -> Iterator[Union[bytes, Content]]:
        for place, piece in enumerate(_MARKS.split(self._skeleton)):
            yield self._contents[int(piece)] if place % 2 else piece


def _marked(value: Any, contents: List[Content], depth: int) -> Any:
    """Return ``value`` with marks in the place of contents, which are added to ``contents``."""
    if isinstance(value, Content):
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

    def __init__(self, body: Mapping[str, Any], payload: Payload) -> None:
        super().__init__(body)
        self.payload = payload


def payload_of(body: Mapping[str, Any]) -> Payload:
    """Return a body encoded; with attachments, one that is read when it is sent.

    Raises:
        TypeError, ConfigurationError: it cannot be sent as JSON; or an attached file cannot be read.
    """
    if type(body) is Encoded:
        return body.payload
    try:
        return encode(body)
    except TypeError as error:
        problem = error
    payload = AttachedPayload.of(body)
    if payload is None:
        raise problem
    return payload


def identity_of(payload: Payload) -> bytes:
    """Return the bytes by which a request is known: what is sent, with the digests of attachments in their places.

    Raises:
        ConfigurationError: an attached file cannot be read.
    """
    return payload if isinstance(payload, bytes) else payload.identity()
