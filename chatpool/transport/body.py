"""Reading an answer's body: whole, or an error; never more than allowed."""

from __future__ import annotations

import codecs
import http.client
import socket
import zlib
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import requests
import urllib3.exceptions
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, ReadTimeout, SSLError
from urllib3.response import HTTPResponse

from ..wire import ResponseTooLarge, UnreadableAnswer
from .deadline import current_exchange
from .responses import BriefResponse, FinalResponse

__all__ = ["PIECE", "READ_DIRECTLY", "Pieces", "Unpacker", "codings_of", "read_any", "read_body"]

PIECE = 16 * 1024

# Not others that are derived of them: a mock's holds its body somewhere else.
READ_DIRECTLY = (http.client.HTTPResponse, FinalResponse, BriefResponse)

_REFUSED = 300  # from this status on, an answer's body is no more than words about its status

# The content codings that are unpacked: those that were asked for.  urllib3, left to itself, unpacks others too where
# their packages are installed, and up to 2.5 all of them without a bound.
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_MOST_CODINGS = 2  # the server's, and one of a gateway that did not look

# Those that pack a body at all. What else gateways write there ("none", "utf-8") changes nothing.
_CODINGS = _PACKED | {"br", "zstd", "compress", "x-compress"}

# zlib's window argument that has it recognise a gzip or zlib header by itself.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"

_ENOUGH = 16  # bytes, after which a packed body that happens to look like text is as good as impossible


def codings_of(headers: Mapping[str, str]) -> Tuple[str, ...]:
    """The content codings of a body, in the order in which they were applied."""
    stated = headers.get("content-encoding")
    if not stated:
        return ()
    names = (name.strip().lower() for name in stated.split(","))
    return tuple(name for name in names if name in _CODINGS)


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

    The status of a refusal says what it is: where the connection breaks within its body, what came before is taken.
    Proxies that close with part of the request unread reset the connection at the end of their answer.

    Raises:
        ResponseTooLarge: more than ``limit`` bytes, announced, received or unpacked.
        requests.exceptions.RequestException: the connection broke, or the body is truncated or garbled.
    """
    raw.enforce_content_length = True  # urllib3 1.26 would take a truncated body for whole
    try:
        codings = codings_of(raw.headers)
        length = raw.length_remaining
        if length is not None and length > limit:
            raise ResponseTooLarge(limit)
        message: Any = getattr(raw, "_fp", None)
        refused = raw.status >= _REFUSED
        if length is not None and not codings and not refused:
            return raw.read(decode_content=False) or b""
        if type(message) in READ_DIRECTLY:
            return _unpack(_pieces_of(message, broken=refused), codings, limit, broken=refused)
        return _unpack(raw.stream(PIECE, decode_content=False), codings, limit)
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


def _unpack(pieces: Iterator[bytes], codings: Tuple[str, ...], limit: int, *, broken: bool = False) -> bytes:
    if not codings:
        return _join(pieces, limit)
    kept = bytearray()
    unpacker = Unpacker(codings, limit)
    try:
        for piece in pieces:
            kept += unpacker.feed(piece)
        kept += unpacker.end()
    except (ContentDecodingError, UnreadableAnswer):
        if not broken:
            raise
    return bytes(kept)


def _pieces_of(message: http.client.HTTPResponse, *, broken: bool) -> Iterator[bytes]:
    """The pieces of a body, up to its end or, where that is good enough, to that of the connection."""
    pieces = Pieces(message)
    try:
        while piece := pieces.next():
            yield piece
    except socket.timeout as error:
        raise ReadTimeout(error) from error
    except (OSError, http.client.HTTPException) as error:
        exchange = current_exchange()
        if exchange is not None and exchange.cancelled:
            raise requests.exceptions.ConnectionError(error) from error
        if not broken:
            raise ChunkedEncodingError(error) from error


class Pieces:
    """Reads a body from http.client without waiting for more than has come, as urllib3 1.26 cannot.

    Args:
        message: the answer, its head read.
    """

    def __init__(self, message: http.client.HTTPResponse) -> None:
        self._message: Any = message

    def next(self) -> bytes:
        """The next piece, b"" at the end of the body."""
        message = self._message
        if message.fp is None:
            return b""
        if message.chunked:
            chunk: bytes = message.read1(PIECE)  # raises IncompleteRead where the connection ends before the body
            return chunk
        # Not by read1(), which up to Python 3.12 does not count what it reads.
        left = message.length
        piece: bytes = b"" if left == 0 else message.fp.read1(PIECE if left is None else min(left, PIECE))
        if left is not None:
            if left and not piece:
                raise http.client.IncompleteRead(b"", left)
            message.length = left - len(piece)
        if not piece:
            message.close()
        return piece


class Unpacker:
    """Unpacks gzip or deflate, never holding more than ``limit`` bytes: urllib3 < 2.6 unpacks without bound.

    A body that is text is handed on as it is: some gateways unpack an answer and leave its label on it.

    Args:
        codings: what the body is said to be packed with, at least one; the last was applied last.
        limit: the most bytes that are unpacked.

    Raises:
        UnreadableAnswer: it is packed with something that was not asked for, or again and again.
    """

    def __init__(self, codings: Tuple[str, ...], limit: int) -> None:
        self._codings = codings
        self._name = codings[-1]
        self._limit = limit
        self._room = limit
        self._start: Optional[bytes] = b""  # too little to tell text from what is packed; None once that is known
        self._is_text = False
        self._zlib: Any = None
        self._inner: Optional[Unpacker] = None

    def feed(self, packed: bytes) -> bytes:
        """What the next bytes of the body make."""
        if self._start is not None:
            packed = self._start + packed
            if len(packed) < _ENOUGH and not packed.startswith(_GZIP_MAGIC):
                self._start = packed
                return b""
            self._decide(packed)
        unpacked = self._unpacked(packed)
        return unpacked if self._inner is None else self._inner.feed(unpacked)

    def end(self) -> bytes:
        """What is left when the body has ended; raises ContentDecodingError if it should not have."""
        rest = b""
        if self._start:
            rest = self._start
            self._decide(rest)
            rest = self._unpacked(rest)
        if self._zlib is not None and not self._zlib.eof:
            raise ContentDecodingError(f"the answer ({self._name}) ends before its end")
        return rest if self._inner is None else self._inner.feed(rest) + self._inner.end()

    def _decide(self, start: bytes) -> None:
        self._start = None
        self._is_text = _is_text(start[:_ENOUGH])
        if self._is_text:
            return
        if self._name not in _PACKED:
            raise UnreadableAnswer(f"Content-Encoding {self._name!r} was not asked for and is not unpacked")
        if len(self._codings) > _MOST_CODINGS:
            raise UnreadableAnswer(f"Content-Encoding names {len(self._codings):,} codings, one inside the other")
        if self._codings[1:]:
            self._inner = Unpacker(self._codings[:-1], self._limit)

    def _unpacked(self, packed: bytes) -> bytes:
        unpacked = bytearray()
        if self._is_text:
            unpacked += packed
            packed = b""
        while packed:
            if self._zlib is None or self._zlib.eof:
                if self._zlib is not None and not packed.startswith(_GZIP_MAGIC[: len(packed)]):
                    break  # padding after the end, which gzip ignores too
                self._zlib = _unpacker_for(packed)
            unpacked += self._step(packed, self._room + 1 - len(unpacked))
            if len(unpacked) > self._room:
                break
            packed = self._zlib.unconsumed_tail or self._zlib.unused_data
        if len(unpacked) > self._room:
            raise ResponseTooLarge(self._limit)
        self._room -= len(unpacked)
        return bytes(unpacked)

    def _step(self, piece: bytes, room: int) -> bytes:
        try:
            unpacked: bytes = self._zlib.decompress(piece, room)
            return unpacked
        except zlib.error as error:
            problem = str(error)
        # Outside of the handler: zlib's error by itself does not tell what it is about.
        raise ContentDecodingError(f"the answer says that it is packed with {self._name} and is not: {problem}")


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\n\r" for byte in start)


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
