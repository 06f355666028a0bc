"""The time limits and the cancelling of one exchange, kept by the exchange itself.

Whatever thread works on an exchange asks it, before every operation that may block, how long that may take.
No watchdog: nothing can fire late and hit the next user of a connection.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import Iterator, NamedTuple, Optional, Tuple

import requests

from ..config import Timeout
from ..locks import new_lock
from ..wire import ResponseTooLarge
from .cancel import Cancelled, CancelToken, Wakeable
from .resolver import Resolver

__all__ = ["Exchange", "Limit", "current_exchange"]

_thread = threading.local()

# Sockets time out to the millisecond; a wake-up just before the limit is one at the limit.
_TICK = 0.002

# Heads and interim answers take some kilobytes; small chunks may triple a body.
_MOST_OVERHEAD = 1024 * 1024


def current_exchange() -> Optional[Exchange]:
    """The exchange that this thread has started and not ended."""
    return getattr(_thread, "exchange", None)


class Limit(NamedTuple):
    """When a wait for a part of a stream has to end.

    Attributes:
        at: on ``time.monotonic``'s scale.
        reason: what happened by then, for the error's message.
    """

    at: float
    reason: str


class Exchange:
    """One exchange with the server, redirects and a resend included.

    Args:
        timeout: ``attempt`` counts from now; ``connect`` and ``read`` are cut to what is left of it.
        tokens: any of them ends the exchange.
        resolver: looks up host names.
        max_response_bytes: the largest body; None for no limit.
        wants_stream: whether a good answer is left open, to be read piece by piece; ``read`` does not count then, since
            a model that thinks sends nothing: ``attempt`` alone does, until whoever reads sets limits of its own.

    Attributes:
        reused: whether it runs on a connection that served another exchange before.
        fresh_only: whether it must not do so.
        send_failed: whether the connection broke before it had taken the whole request.
        received: bytes that have come back.
        held: what a cancel would wake.
        peer: the host that its latest connection is to; "" before the first.
        goes_on: whether it outlives the thread's part in it: then whoever reads on calls :meth:`finish`.
    """

    def __init__(
        self,
        timeout: Timeout,
        tokens: Tuple[CancelToken, ...],
        resolver: Resolver,
        max_response_bytes: Optional[int] = None,
        *,
        wants_stream: bool = False,
    ) -> None:
        # Not the pool's clock: a fake one would not move while a real socket waits.
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout.attempt
        self._limit = self._deadline
        self._tokens = tokens
        self._resolver = resolver
        self._max_response_bytes = max_response_bytes
        self._lock = new_lock()
        self.held: Optional[Wakeable] = None
        self._connecting = False
        self._silent = False
        self.reused = False
        self.fresh_only = False
        self.send_failed = False
        self.received = 0
        self.peer = ""
        self.wants_stream = wants_stream
        self.goes_on = False
        self._reason: Optional[str] = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make this the thread's current exchange, under its tokens.

        Raises:
            Cancelled: a token was cancelled before.
        """
        outer = current_exchange()
        try:
            for token in self._tokens:
                token.attach(self)
            _thread.exchange = self
            yield
        except BaseException:
            self.goes_on = False
            self._abandon()
            raise
        finally:
            _thread.exchange = outer
            if not self.goes_on:
                self.finish()

    def finish(self) -> None:
        """Nothing blocks any more: its tokens need not wake it."""
        for token in self._tokens:
            token.detach(self)

    def bound(self, limit: Limit) -> None:
        """Have what follows end by ``limit``, in the place of ``timeout``'s limits."""
        self._deadline = self._limit = limit.at
        self._reason = limit.reason

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Bound what happens inside by ``Timeout.connect`` too."""
        self._limit = min(self._deadline, time.monotonic() + self.timeout.connect)
        self._connecting = True
        yield
        # Not in a finally: after a failure it still counts which phase it happened in.
        self._limit = self._deadline
        self._connecting = False

    @property
    def deadline(self) -> float:
        """When it has to be over, on ``time.monotonic``'s scale."""
        return self._deadline

    @property
    def cancelled(self) -> bool:
        """Whether one of its tokens is cancelled."""
        for token in self._tokens:  # noqa: SIM110 - any() takes thrice as long, at every socket operation
            if token.cancelled:
                return True
        return False

    def check(self) -> None:
        """Raise Cancelled if it was cancelled."""
        if self.cancelled:
            raise Cancelled("cancelled")

    def left(self) -> float:
        """Seconds that the next operation may take.

        Raises:
            Cancelled: it was cancelled.
            TimeoutError: no time is left.
        """
        self.check()
        left = self._limit - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        return left

    def left_to_read(self) -> float:
        """Seconds to wait for the next piece of the answer; raises as :meth:`left`."""
        left = self.left()
        read = self.timeout.read
        if read is None or self._connecting or self.wants_stream or self._reason is not None:
            return left
        return min(left, read)

    def start_on(self, *, reused: bool) -> None:
        """Note that a request is about to go out on a connection."""
        self.reused = reused
        self.send_failed = False
        self.received = 0

    def count(self, size: int) -> None:
        """Count bytes that have come; raises ResponseTooLarge when they are far too many.

        Whoever reads the body counts more exactly, but does not see what never becomes body: interim answers
        without end, or the length of a chunk.
        """
        self.received += size
        limit = self._max_response_bytes
        if limit is not None and self.received > 4 * limit + _MOST_OVERHEAD:
            raise ResponseTooLarge(limit)

    def read_timed_out(self) -> None:
        """Note that a wait for the answer ran out of time."""
        self._silent = True

    def hold(self, blocker: Wakeable) -> None:
        """Have ``blocker`` woken on cancel, instead of the one held before; raises Cancelled if it is too late."""
        with self._lock:
            # Under the lock: a cancel either is seen here or finds the blocker held.
            self.check()
            self.held = blocker

    def _abandon(self) -> None:
        """Close what a failed exchange still holds: a file of an answer that was never read keeps a socket open."""
        with self._lock:
            held, self.held = self.held, None
        destroy = getattr(held, "destroy", None)
        if destroy is not None:
            destroy()

    def drop(self, blocker: Wakeable) -> None:
        """Let go of ``blocker``: from now on, a cancel does not touch it."""
        with self._lock:
            if self.held is blocker:
                self.held = None

    def wake(self) -> None:
        """End what the exchange is blocked in; called by its tokens."""
        with self._lock:
            if self.held is not None:
                self.held.wake()

    def resolve(self, host: str, port: int) -> list[tuple[object, ...]]:
        """``socket.getaddrinfo`` for a TCP connection, within the limits."""
        return self._resolver.resolve(host, port, self)

    def good_address(self, host: str, port: int) -> Optional[object]:
        """The one of several addresses of a host that took a connection last, None if none has."""
        return self._resolver.good.get((host, port))

    def remember(self, host: str, port: int, address: object) -> None:
        """Have this address of the host tried first from now on."""
        self._resolver.good[host, port] = address

    def failure(self, error: Exception) -> Exception:
        """What to raise for ``error``: Cancelled, a timeout that names its limit, or ``error`` itself."""
        if self.cancelled:
            return Cancelled("cancelled")
        now = time.monotonic() + _TICK
        timeout = self.timeout
        if now >= self._deadline and self._reason is not None:
            return requests.exceptions.Timeout(self._reason)
        if now >= self._deadline:
            return requests.exceptions.Timeout(f"no complete answer within {timeout.attempt:.3g} s (Timeout.attempt)")
        if self._connecting and now >= self._limit:
            return requests.exceptions.ConnectTimeout(f"no connection within {timeout.connect:.3g} s (Timeout.connect)")
        if self._silent and timeout.read is not None and not self.wants_stream:
            return requests.exceptions.ReadTimeout(f"the server sent nothing for {timeout.read:.3g} s (Timeout.read)")
        return error

    @property
    def undelivered(self) -> bool:
        """Whether the server provably has not processed the request.

        So it is when a kept-alive connection broke before it had taken the whole request, and nothing came
        back (RFC 9110, 9.2.2).  A connection that breaks later may have been closed while the model worked.
        """
        return self.reused and self.send_failed and not self.received
