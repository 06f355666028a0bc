"""Reading an answer's body: whole, or an error; never more than allowed.

An answer that comes little by little, read while it comes.
"""

from __future__ import annotations

import codecs
import contextlib
import http.client
import socket
import threading
import time
import zlib
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import requests
import urllib3.exceptions
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, ReadTimeout, SSLError
from urllib3.response import HTTPResponse

from .._wire import ResponseTooLarge, UnreadableAnswer, is_event_stream
from .exchange import CancelToken, Exchange, StreamDeadline, current_exchange
from .http1 import BriefResponse, FinalResponse

__all__ = ["PIECE", "READ_DIRECTLY", "OpenStream", "Pieces", "Unpacker", "codings_of", "read_any", "read_body"]


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


_MOST_SKIPPED = 4  # pieces that may come after the end of the events


class OpenStream:
    """The body of an answer under way.

    Read by one thread at a time, which need not always be the same; closed by any.

    Args:
        response: the answer, its body unread.
        exchange: what it belongs to; its tokens wake a read.
        ending: one of them, for nothing but this stream.
        max_response_bytes: the most that is read of it altogether, unpacked.

    Attributes:
        status: HTTP status.
        headers: response headers, looked up without regard to case.
        deadline: when the exchange's ``Timeout.attempt`` is over, on ``time.monotonic``'s scale.
    """

    def __init__(
        self, response: requests.Response, exchange: Exchange, ending: CancelToken, max_response_bytes: int
    ) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.deadline = exchange.deadline
        self._response = response
        self._exchange = exchange
        self._ending = ending
        self._room = self._most = max_response_bytes
        self._unpacker: Optional[Unpacker] = None
        self._direct = False
        self._seen = b""  # read already, and still to be handed out
        self._lock = threading.Lock()  # held while it is read or closed
        self._ended = False
        self._next_piece = self._choose_reader()

    def read(self, limit: Optional[StreamDeadline] = None) -> bytes:
        """What has come, at least one byte; b"" at the end, and the connection can be used again.

        Args:
            limit: until when to wait. Default: the limits of the exchange's timeout.

        Raises:
            Cancelled: a token of the exchange's was cancelled, or the stream was closed by another thread.
            requests.exceptions.Timeout: nothing came in time; the message is the limit's reason.
            ResponseTooLarge: it is longer than ``max_response_bytes`` altogether.
            RuntimeError: another thread is reading.
            Exception: the connection broke, or what came is garbled.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("the stream is being read by another thread")
        try:
            return self._read(limit)
        except Exception as error:
            failure = self._exchange.failure(error)
            if failure is error:
                raise
        finally:
            self._lock.release()
            if self._ending.cancelled:
                self._close_idle()  # whoever closed it could not, as this thread was reading
        # Outside of the handler: the time limit is the whole story, what broke because of it is not.
        raise failure

    def whole(self) -> Optional[bytes]:
        """The whole body if it is no stream of events but one answer, whatever its content type says; else None.

        Waits for the first bytes within the limits of the exchange's timeout; raises as :meth:`read`.
        """
        start, verdict = b"", None
        while verdict is None:
            data = self.read()
            start += data
            verdict = is_event_stream(self.headers, start, ended=not data)
        if verdict:
            self._seen = start
            return None
        self._exchange.wants_stream = False
        pieces: List[bytes] = [start]
        while pieces[-1]:
            pieces.append(self.read())
        return b"".join(pieces)

    def close(self) -> None:
        """End the exchange at once, wherever it is; the connection is closed.  Nothing happens after the end."""
        if not self._ended:
            self._ending.cancel()
            self._close_idle()

    def finish(self, seconds: float) -> None:
        """Nothing that may still come is of interest: keep the connection if the body ends within ``seconds``."""
        limit = StreamDeadline(time.monotonic() + seconds, "the stream did not end")
        with contextlib.suppress(Exception):  # then the connection is of no use, which is all there is to say
            for _ in range(_MOST_SKIPPED):
                if self._ended or not self.read(limit):
                    break
        self.close()

    def _close_idle(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._end(reusable=False)
            finally:
                self._lock.release()

    def _read(self, limit: Optional[StreamDeadline]) -> bytes:
        if self._seen:
            self._exchange.check()
            seen, self._seen = self._seen, b""
            return seen
        if self._ended:
            self._exchange.check()
            return b""
        try:
            if limit is not None:
                self._exchange.bound(limit)
            self._exchange.check()
            data = self._next_data()
        except BaseException:
            self._end(reusable=False)
            raise
        if not data:
            self._end(reusable=True)
        return data

    def _next_data(self) -> bytes:
        data = b""
        while not data:
            data = self._next_piece()
            if not data:
                unpacker, self._unpacker = self._unpacker, None
                if unpacker is None:
                    return b""
                data = unpacker.end()
                break
            if self._unpacker is not None:
                data = self._unpacker.feed(data)
        self._room -= len(data)
        if self._room < 0:
            raise ResponseTooLarge(self._most)
        return data

    def _end(self, *, reusable: bool) -> None:
        if self._ended:
            return
        self._ended = True
        raw = self._response.raw
        try:
            if not self._direct:
                self._response.close()
            elif reusable:
                raw.release_conn()
            else:
                raw.close()
        finally:
            self._exchange.finish()

    def _choose_reader(self) -> Callable[[], bytes]:
        raw: Any = self._response.raw
        message: Any = getattr(raw, "_fp", None)
        codings = codings_of(self.headers)
        if not isinstance(raw, HTTPResponse):
            return partial(next, self._response.iter_content(PIECE), b"")
        self._unpacker = Unpacker(codings, self._most) if codings else None
        if type(message) in READ_DIRECTLY:
            self._direct = True
            return Pieces(message).next
        # A mock's, or from an adapter of the user's that has a protocol engine of its own.
        return partial(raw.read, PIECE, decode_content=False)
