"""Reading an answer's body: whole, or an error; never more than allowed."""

from __future__ import annotations

import zlib
from typing import Any, Callable, Dict, Iterator, List

import requests
import urllib3.exceptions
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, ReadTimeout, SSLError
from urllib3.response import HTTPResponse

from ..wire import ResponseTooLarge

__all__ = ["PACKED", "PIECE", "Unpacker", "read_any", "read_body"]

PIECE = 16 * 1024

PACKED = frozenset({"gzip", "x-gzip", "deflate"})
"""Content codings that are unpacked here."""

# zlib's window argument that has it recognise a gzip or zlib header by itself.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"


def read_any(response: requests.Response, limit: int) -> bytes:
    """The body of a response from any source, a mock or an adapter of the user's included; closes it."""
    raw = response.raw
    if isinstance(raw, HTTPResponse) and not getattr(response, "_content_consumed", False):
        return read_body(raw, limit)
    try:
        content = _join(response.iter_content(PIECE), limit)
    finally:
        response.close()
    response._content = content  # as requests does: a mock may give the same response again
    return content


def read_body(raw: HTTPResponse, limit: int) -> bytes:
    """The whole decompressed body of urllib3's response; its connection goes back to the pool.

    Raises:
        ResponseTooLarge: more than ``limit`` bytes, announced, received or unpacked.
        requests.exceptions.RequestException: the connection broke, or the body is truncated or garbled.
    """
    raw.enforce_content_length = True  # urllib3 1.26 would take a truncated body for whole
    encoding = raw.headers.get("content-encoding", "").strip().lower()
    try:
        length = raw.length_remaining
        if length is not None and length > limit:
            raise ResponseTooLarge(limit)
        if length is not None and not encoding:
            return raw.read(decode_content=False) or b""
        if encoding in PACKED:
            return _unpack(raw.stream(PIECE, decode_content=False), limit)
        return _join(raw.stream(PIECE, decode_content=True), limit)
    except urllib3.exceptions.HTTPError as error:
        raise _translated(error) from error
    finally:
        if raw.closed:
            raw.release_conn()
        else:
            raw.close()  # not read to its end: nobody can use the connection again


def _join(pieces: Iterator[bytes], limit: int) -> bytes:
    kept: List[bytes] = []
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise ResponseTooLarge(limit)
        kept.append(piece)
    return b"".join(kept)


def _unpack(pieces: Iterator[bytes], limit: int) -> bytes:
    kept = bytearray()
    unpacker = Unpacker(limit)
    for piece in pieces:
        kept += unpacker.feed(piece)
    unpacker.end()
    return bytes(kept)


class Unpacker:
    """Unpacks gzip or deflate, never holding more than ``limit`` bytes: urllib3 < 2.6 unpacks without bound."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._room = limit
        self._zlib: Any = None

    def feed(self, packed: bytes) -> bytes:
        """What the next bytes of the body make."""
        unpacked = bytearray()
        while packed:
            if self._zlib is None or self._zlib.eof:
                if self._zlib is not None and not packed.startswith(_GZIP_MAGIC[: len(packed)]):
                    break  # padding after the end, which gzip ignores too
                self._zlib = _unpacker_for(packed)
            unpacked += _step(self._zlib, packed, self._room + 1 - len(unpacked))
            if len(unpacked) > self._room:
                raise ResponseTooLarge(self._limit)
            packed = self._zlib.unconsumed_tail or self._zlib.unused_data
        self._room -= len(unpacked)
        return bytes(unpacked)

    def end(self) -> None:
        """The body has ended; raises ContentDecodingError if it should not have."""
        if self._zlib is not None and not self._zlib.eof:
            raise ContentDecodingError("the compressed answer ends before its end")


def _step(unpacker: Any, piece: bytes, room: int) -> bytes:
    try:
        unpacked: bytes = unpacker.decompress(piece, room)
    except zlib.error as error:
        raise ContentDecodingError(f"the compressed answer is garbled: {error}") from error
    return unpacked


def _unpacker_for(first_piece: bytes) -> Any:
    try:
        zlib.decompressobj(_GZIP_OR_ZLIB).decompress(first_piece, 1)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS)  # "deflate" without zlib's header, as some servers have it
    return zlib.decompressobj(_GZIP_OR_ZLIB)


_TRANSLATIONS: Dict[type, Callable[..., requests.exceptions.RequestException]] = {
    urllib3.exceptions.ProtocolError: ChunkedEncodingError,
    urllib3.exceptions.DecodeError: ContentDecodingError,
    urllib3.exceptions.ReadTimeoutError: ReadTimeout,
    urllib3.exceptions.SSLError: SSLError,
}


def _translated(error: urllib3.exceptions.HTTPError) -> requests.exceptions.RequestException:
    for theirs, ours in _TRANSLATIONS.items():
        if isinstance(error, theirs):
            return ours(error)
    return requests.exceptions.ConnectionError(error)
