"""Bodies of responses: read whole, or piece by piece while they arrive; never more than allowed.

A body that is truncated, garbled or too large is an error, also when it is compressed.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
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
from requests.utils import get_encoding_from_headers
from urllib3.response import HTTPResponse

from .._wire import ResponseTooLarge, UnreadableAnswer, is_event_stream, is_success
from .answer_file import AnswerFile
from .exchange import CancelToken, Exchange, StreamDeadline, current_exchange
from .http1 import FastPathResponse, FinalResponse

__all__ = ["OpenStream", "WholeResponse", "read_any", "read_body"]


_PIECE_BYTES = 16 * 1024

# Not classes derived from them: that of a mock has its body somewhere else.
_DIRECTLY_READ_CLASSES = (http.client.HTTPResponse, FinalResponse, FastPathResponse)

_MIN_REJECTION_STATUS = 300  # from this status on, the body of a response only explains its status

# The content codings that are decoded: those that requests ask for.  urllib3 by itself decodes others too where their
# packages are installed, and up to 2.5 all of them without a bound.
_DECODABLE_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_MAX_CODINGS = 2  # the server's, and one of a gateway that did not check

# All codings that change a body.  Other values that gateways write there ("none", "utf-8") change nothing.
_CODINGS = _DECODABLE_CODINGS | {"br", "zstd", "compress", "x-compress"}

# zlib's window argument with which it recognises a gzip or zlib header by itself.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"

_SNIFFED_BYTES = 16  # after which it is practically impossible that a compressed body looks like text

_MAX_SKIPPED_PIECES = 4  # that may come after the last event


class WholeResponse(requests.Response):
    """A response whose body has been read, within the limit."""

    @functools.cached_property
    def encoding(self) -> Optional[str]:  # type: ignore[override]
        """That of ``text``, by the headers; whoever asks for it pays for it."""
        return get_encoding_from_headers(self.headers)


def read_any(response: requests.Response, limit: int) -> bytes:
    """Return the body of a response from any source, a mock or an adapter of the user's included, and close it."""
    raw = response.raw
    exchange = current_exchange()
    if type(response) is WholeResponse and (exchange is None or exchange.answer_file is None):
        return response.content
    file = None if exchange is None or not is_success(response.status_code) else exchange.answer_file
    if isinstance(raw, HTTPResponse) and not getattr(response, "_content_consumed", False):
        return read_body(raw, limit, file)
    if file is not None and file.has_body:
        return response.content
    try:
        pieces = _limited(response.iter_content(_PIECE_BYTES), limit)
        content = b"".join(pieces) if file is None else file.write(pieces)
    finally:
        response.close()
    response._content = content  # as requests does: a mock may give the same response again
    return content


def read_body(raw: HTTPResponse, limit: int, file: Optional[AnswerFile] = None) -> bytes:
    """Return the whole decoded body of urllib3's response; its connection goes back to the pool.

    With ``file`` it goes there piece by piece, and what is returned is its beginning.

    A rejection is known by its status: where the connection breaks within its body, the part before counts.
    Proxies that close with part of the request unread reset the connection at the end of their answer.

    Raises:
        ResponseTooLarge: more than ``limit`` bytes, announced, received or decoded.
        requests.exceptions.RequestException: the connection broke, or the body is truncated or garbled.
        FileFault: the file cannot be written.
    """
    raw.enforce_content_length = True  # urllib3 1.26 would take a truncated body for whole
    try:
        codings = _content_codings(raw.headers)
        length = raw.length_remaining
        if length is not None and length > limit:
            raise ResponseTooLarge(limit)
        message: Any = getattr(raw, "_fp", None)
        is_rejection = raw.status >= _MIN_REJECTION_STATUS
        is_direct = type(message) in _DIRECTLY_READ_CLASSES
        if length is not None and not codings and not is_rejection and file is None:
            return _read_at_once(raw, message) if is_direct else raw.read(decode_content=False) or b""
        if is_direct:
            pieces = _pieces_of(message, may_break=is_rejection)
        else:
            pieces = raw.stream(_PIECE_BYTES, decode_content=False)
        decoded = _decoded(pieces, codings, limit, may_break=is_rejection)
        return b"".join(decoded) if file is None else file.write(decoded)
    except urllib3.exceptions.HTTPError as error:
        raise _translated(error) from error
    finally:
        if raw.closed:
            raw.release_conn()
        else:
            raw.close()  # not read to its end: the connection cannot be used again


def _read_at_once(raw: HTTPResponse, message: http.client.HTTPResponse) -> bytes:
    """Return a body of known length, as ``raw.read()`` does at three times the cost."""
    try:
        return message.read()
    except (OSError, http.client.HTTPException) as error:
        raw.close()  # http.client itself takes a body that breaks off for read
        raise _broken(error) from error


def _limited(pieces: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise ResponseTooLarge(limit)
        yield piece


def _decoded(pieces: Iterator[bytes], codings: Tuple[str, ...], limit: int, *, may_break: bool) -> Iterator[bytes]:
    if not codings:
        yield from _limited(pieces, limit)
        return
    decoder = _ContentDecoder(codings, limit)
    try:
        for piece in pieces:
            yield decoder.feed(piece)
        yield decoder.end()
    except (ContentDecodingError, UnreadableAnswer):
        if not may_break:
            raise


def _pieces_of(message: http.client.HTTPResponse, *, may_break: bool) -> Iterator[bytes]:
    """Yield the pieces of a body, up to its end or, if it may break, to that of the connection."""
    pieces = _PieceReader(message)
    try:
        while piece := pieces.next():
            yield piece
    except (OSError, http.client.HTTPException) as error:
        broken = _broken(error)
        if not (may_break and type(broken) is ChunkedEncodingError):
            raise broken from error


def _broken(error: Exception) -> requests.exceptions.RequestException:
    """Return what requests raises for an error within a body."""
    if isinstance(error, socket.timeout):
        return ReadTimeout(error)
    exchange = current_exchange()
    if exchange is not None and exchange.cancelled:
        return requests.exceptions.ConnectionError(error)
    return ChunkedEncodingError(error)


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


class OpenStream:
    """Body of a response that is still arriving.

    Read by one thread at a time, which need not always be the same; closed by any.

    Args:
        response: the response, its body unread.
        exchange: the exchange that it belongs to; its tokens wake a read.
        own_token: one of them, for this stream only.
        max_response_bytes: the most that is read of it altogether, decoded.

    Attributes:
        status: HTTP status.
        headers: response headers, looked up without regard to case.
        deadline: when the exchange's ``Timeout.attempt`` is over, on ``time.monotonic``'s scale.
    """

    def __init__(
        self, response: requests.Response, exchange: Exchange, own_token: CancelToken, max_response_bytes: int
    ) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.deadline = exchange.deadline
        self._response = response
        self._exchange = exchange
        self._own_token = own_token
        self._left_bytes = self._max_bytes = max_response_bytes
        self._decoder: Optional[_ContentDecoder] = None
        self._direct = False
        self._peeked = b""  # read already, and still to be returned
        self._lock = threading.Lock()  # held while it is read or closed
        self._ended = False
        self._next_piece = self._choose_reader()

    def read(self, deadline: Optional[StreamDeadline] = None) -> bytes:
        """Return the bytes that have arrived, at least one; b"" at the end, and the connection can be used again.

        Args:
            deadline: until when to wait. Default: the limits of the exchange's timeout.

        Raises:
            Cancelled: a token of the exchange's was cancelled, or the stream was closed by another thread.
            requests.exceptions.Timeout: nothing came in time; the message is the deadline's reason.
            ResponseTooLarge: it is longer than ``max_response_bytes`` altogether.
            RuntimeError: another thread is reading.
            Exception: the connection broke, or the body is garbled.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("the stream is being read by another thread")
        try:
            return self._read(deadline)
        except Exception as error:
            failure = self._exchange.failure(error)
            if failure is error:
                raise
        finally:
            self._lock.release()
            if self._own_token.cancelled:
                self._close_idle()  # the thread that closed it could not, as this one was reading
        # Outside of the handler: the error that the time limit has caused would only distract.
        raise failure

    def read_unless_events(self) -> Optional[bytes]:
        """Return the whole body if it is no stream of events, whatever its content type says; otherwise None.

        Waits for the first bytes within the limits of the exchange's timeout; raises as :meth:`read`.
        """
        start, verdict = b"", None
        while verdict is None:
            data = self.read()
            start += data
            verdict = is_event_stream(self.headers, start, ended=not data)
        if verdict:
            self._peeked = start
            return None
        self._exchange.wants_stream = False
        pieces: List[bytes] = [start]
        while pieces[-1]:
            pieces.append(self.read())
        return b"".join(pieces)

    def close(self) -> None:
        """End the exchange at once, in whatever state it is, and close the connection; does nothing after the end."""
        if not self._ended:
            self._own_token.cancel()
            self._close_idle()

    def finish(self, seconds: float) -> None:
        """Close it; keep the connection if the body ends within ``seconds``."""
        deadline = StreamDeadline(time.monotonic() + seconds, "the stream did not end")
        with contextlib.suppress(Exception):  # after an error the connection is simply closed
            for _ in range(_MAX_SKIPPED_PIECES):
                if self._ended or not self.read(deadline):
                    break
        self.close()

    def _close_idle(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._end(reusable=False)
            finally:
                self._lock.release()

    def _read(self, deadline: Optional[StreamDeadline]) -> bytes:
        if self._peeked:
            self._exchange.check()
            peeked, self._peeked = self._peeked, b""
            return peeked
        if self._ended:
            self._exchange.check()
            return b""
        try:
            if deadline is not None:
                self._exchange.set_deadline(deadline)
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
                decoder, self._decoder = self._decoder, None
                if decoder is None:
                    return b""
                data = decoder.end()
                break
            if self._decoder is not None:
                data = self._decoder.feed(data)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ResponseTooLarge(self._max_bytes)
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
        codings = _content_codings(self.headers)
        if not isinstance(raw, HTTPResponse):
            return partial(next, self._response.iter_content(_PIECE_BYTES), b"")
        self._decoder = _ContentDecoder(codings, self._max_bytes) if codings else None
        if type(message) in _DIRECTLY_READ_CLASSES:
            self._direct = True
            return _PieceReader(message).next
        # That of a mock, or of an adapter of the user's that does not use http.client.
        return partial(raw.read, _PIECE_BYTES, decode_content=False)


class _PieceReader:
    """Reads a body from http.client without waiting for more than has arrived, as urllib3 1.26 cannot.

    Args:
        message: the response, its head read.
    """

    def __init__(self, message: http.client.HTTPResponse) -> None:
        self._message: Any = message

    def next(self) -> bytes:
        """Return the next piece, b"" at the end of the body."""
        message = self._message
        if message.fp is None:
            return b""
        if message.chunked:
            chunk: bytes = message.read1(
                _PIECE_BYTES
            )  # raises IncompleteRead where the connection ends before the body
            return chunk
        # Not by read1(), which up to Python 3.12 does not count what it reads.
        left = message.length
        piece: bytes = b"" if left == 0 else message.fp.read1(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
        if left is not None:
            if left and not piece:
                raise http.client.IncompleteRead(b"", left)
            message.length = left - len(piece)
        if not piece:
            message.close()
        return piece


def _content_codings(headers: Mapping[str, str]) -> Tuple[str, ...]:
    """Return the content codings of a body, in the order in which they were applied."""
    value = headers.get("content-encoding")
    if not value:
        return ()
    names = (name.strip().lower() for name in value.split(","))
    return tuple(name for name in names if name in _CODINGS)


class _ContentDecoder:
    """Decodes gzip or deflate into at most ``limit`` bytes: urllib3 < 2.6 decodes without bound.

    A body that is text is passed on unchanged: some gateways decode a body and leave its Content-Encoding.

    Args:
        codings: the codings of its Content-Encoding, at least one; the last was applied last.
        limit: the most bytes that are decoded.

    Raises:
        UnreadableAnswer: it has a coding that was not asked for, or too many of them.
    """

    def __init__(self, codings: Tuple[str, ...], limit: int) -> None:
        self._codings = codings
        self._name = codings[-1]
        self._limit = limit
        self._left_bytes = limit
        self._start: Optional[bytes] = b""  # too short to tell text from compressed data; None once that is known
        self._is_text = False
        self._zlib: Any = None
        self._inner: Optional[_ContentDecoder] = None

    def feed(self, encoded: bytes) -> bytes:
        """Return the next bytes of the body, decoded."""
        if self._start is not None:
            encoded = self._start + encoded
            if len(encoded) < _SNIFFED_BYTES and not encoded.startswith(_GZIP_MAGIC):
                self._start = encoded
                return b""
            self._choose_decoder(encoded)
        decoded = self._decode(encoded)
        return decoded if self._inner is None else self._inner.feed(decoded)

    def end(self) -> bytes:
        """Return the rest when the body has ended; raise ContentDecodingError if it is incomplete."""
        rest = b""
        if self._start:
            rest = self._start
            self._choose_decoder(rest)
            rest = self._decode(rest)
        if self._zlib is not None and not self._zlib.eof:
            raise ContentDecodingError(f"the answer ({self._name}) ends before its end")
        return rest if self._inner is None else self._inner.feed(rest) + self._inner.end()

    def _choose_decoder(self, start: bytes) -> None:
        self._start = None
        self._is_text = _is_text(start[:_SNIFFED_BYTES])
        if self._is_text:
            return
        if self._name not in _DECODABLE_CODINGS:
            raise UnreadableAnswer(f"Content-Encoding {self._name!r} was not asked for and is not unpacked")
        if len(self._codings) > _MAX_CODINGS:
            raise UnreadableAnswer(f"Content-Encoding names {len(self._codings):,} codings, one inside the other")
        if self._codings[1:]:
            self._inner = _ContentDecoder(self._codings[:-1], self._limit)

    def _decode(self, encoded: bytes) -> bytes:
        decoded = bytearray()
        if self._is_text:
            decoded += encoded
            encoded = b""
        while encoded:
            if self._zlib is None or self._zlib.eof:
                if self._zlib is not None and not encoded.startswith(_GZIP_MAGIC[: len(encoded)]):
                    break  # padding after the end, which gzip ignores too
                self._zlib = _zlib_decoder_for(encoded)
            decoded += self._decompress(encoded, self._left_bytes + 1 - len(decoded))
            if len(decoded) > self._left_bytes:
                break
            encoded = self._zlib.unconsumed_tail or self._zlib.unused_data
        if len(decoded) > self._left_bytes:
            raise ResponseTooLarge(self._limit)
        self._left_bytes -= len(decoded)
        return bytes(decoded)

    def _decompress(self, piece: bytes, max_bytes: int) -> bytes:
        try:
            decoded: bytes = self._zlib.decompress(piece, max_bytes)
            return decoded
        except zlib.error as error:
            problem = str(error)
        # Outside of the handler: zlib's error by itself does not say what it is about.
        raise ContentDecodingError(f"the answer says that it is packed with {self._name} and is not: {problem}")


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\n\r" for byte in start)


def _zlib_decoder_for(first_piece: bytes) -> Any:
    try:
        zlib.decompressobj(_GZIP_OR_ZLIB).decompress(first_piece, 1)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS)  # "deflate" without zlib's header, as some servers send it
    return zlib.decompressobj(_GZIP_OR_ZLIB)
