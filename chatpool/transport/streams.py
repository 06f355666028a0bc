"""An answer that comes little by little, read while it comes."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import Any, Callable, List, Mapping, Optional

import requests
from urllib3.response import HTTPResponse

from ..wire import ResponseTooLarge, is_event_stream
from .body import PIECE, READ_DIRECTLY, Pieces, Unpacker, codings_of
from .cancel import CancelToken
from .deadline import Exchange, Limit

__all__ = ["OpenStream"]

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

    def read(self, limit: Optional[Limit] = None) -> bytes:
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
        limit = Limit(time.monotonic() + seconds, "the stream did not end")
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

    def _read(self, limit: Optional[Limit]) -> bytes:
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
