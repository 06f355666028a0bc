"""Time limits and cancelling of one exchange, kept by the exchange itself.

A thread that works on an :class:`Exchange` asks it, before every operation that may block, how long that may take.
There is no watchdog: nothing can fire late and hit the next user of a connection.  With a :class:`CancelToken` one
thread ends exchanges of others.  The :class:`Resolver` runs ``getaddrinfo``, which cannot be interrupted, in another
thread, so that an exchange can stop waiting for it.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Protocol, Set, Tuple, Type

import requests
from urllib3.util.connection import allowed_gai_family

from .._locks import HAS_SAFE_WITH, new_lock
from .._wire import ResponseTooLarge
from ..config import Timeout
from .answer_file import AnswerFile

__all__ = [
    "AddressInfo",
    "CancelToken",
    "Cancelled",
    "Exchange",
    "Resolver",
    "StreamDeadline",
    "Waiter",
    "Wakeable",
    "current_exchange",
]


class _PerThread(threading.local):
    exchange: Optional[Exchange] = None  # the one that the thread works on


_thread = _PerThread()

# Sockets time out to the millisecond: a wake-up just before the limit counts as one at the limit.
_TICK_SECONDS = 0.002

# Heads and interim answers take some kilobytes; small chunks may triple a body.
_MAX_OVERHEAD_BYTES = 1024 * 1024

AddressInfo = Tuple[Any, ...]  # one entry of socket.getaddrinfo's list
Lookup = Tuple[str, int]


class Cancelled(Exception):
    """The exchange was ended because its token was cancelled, or its transport aborted or closed."""


class Wakeable(Protocol):
    """An operation that may be blocked, and can be woken from another thread."""

    def wake(self) -> None:
        """End the wait, if there is one; never raises."""


class CancelToken:
    """Cancels every exchange that runs under it, now or later.

    One token may serve any number of exchanges: those of a call, or of a run.  It has no lock, which every exchange of
    a pool would take and which a signal handler could find taken: each step on its set is atomic by itself.

    Attributes:
        cancelled: whether :meth:`cancel` was called; read at every socket operation, so no property.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._attached: Set[Wakeable] = set()

    def cancel(self) -> None:
        """Wake every exchange under this token and refuse later ones.  From any thread, any number of times."""
        self.cancelled = True
        for waiter in self._attached.copy():
            waiter.wake()

    def attach(self, waiter: Wakeable) -> None:
        """Let :meth:`cancel` wake ``waiter``, until it is detached.

        Raises:
            Cancelled: the token was cancelled before.
        """
        # Attached before the check: a cancel either finds the waiter or is seen here.
        self._attached.add(waiter)
        if self.cancelled:
            self._attached.discard(waiter)
            raise Cancelled("cancelled before it was sent")

    def detach(self, waiter: Wakeable) -> None:
        """Undo :meth:`attach`; nothing happens when it was not attached."""
        self._attached.discard(waiter)

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else f"{len(self._attached)} exchanges"
        return f"CancelToken({state})"


def current_exchange() -> Optional[Exchange]:
    """Return the exchange that this thread has started and not ended, None without one."""
    return _thread.exchange


class StreamDeadline(NamedTuple):
    """End of a wait for a part of a stream.

    Attributes:
        at: on ``time.monotonic``'s scale.
        reason: message of the error that is raised then.
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
        wants_stream: whether a successful response is left open, to be read piece by piece; ``read`` does not count
            then, since a model that thinks sends nothing: ``attempt`` alone does, until the reader sets deadlines.
        answer_file: takes the body of a successful response; None to keep it in memory.

    Attributes:
        reused: whether it runs on a connection that served another exchange before.
        needs_fresh_connection: whether it must run on a new one.
        send_failed: whether the connection broke before it had taken the whole request.
        received: bytes that have come back.
        held: the operation that a cancel wakes.
        peer: the host that its latest connection is to; "" before the first.
        stays_open: whether it outlives its ``with`` block: then the reader of the stream calls :meth:`finish`.
    """

    def __init__(
        self,
        timeout: Timeout,
        tokens: Tuple[CancelToken, ...],
        resolver: Resolver,
        max_response_bytes: Optional[int] = None,
        *,
        wants_stream: bool = False,
        answer_file: Optional[AnswerFile] = None,
    ) -> None:
        # Not the pool's clock: a fake one would not move while a real socket waits.
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout.attempt
        self._limit = self._deadline
        self._tokens = tokens
        self._resolver = resolver
        self._max_response_bytes = max_response_bytes
        # Its own: a finalizer that ends a stream takes the lock of its exchange, and must find no other work in it.
        # It is only taken by ``with``: where that is safe, it need not be known to release_forgotten().
        self._lock = threading.RLock() if HAS_SAFE_WITH else new_lock()
        self.held: Optional[Wakeable] = None
        self._connecting = False
        self._read_has_timed_out = False
        self.reused = False
        self.needs_fresh_connection = False
        self.send_failed = False
        self.received = 0
        self.peer = ""
        self.wants_stream = wants_stream
        self.answer_file = answer_file
        self.stays_open = False
        self._reason: Optional[str] = None
        self._outer: Optional[Exchange] = None

    def __enter__(self) -> None:
        """Make this the thread's current exchange, under its tokens.

        Raises:
            Cancelled: a token was cancelled before.
        """
        self._outer = _thread.exchange
        try:
            for token in self._tokens:
                token.attach(self)
            _thread.exchange = self
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __exit__(self, error_class: Optional[Type[BaseException]], *_: object) -> None:
        if error_class is not None:
            self.stays_open = False
            self._abandon()
        _thread.exchange = self._outer
        if not self.stays_open:
            self.finish()

    def finish(self) -> None:
        """Detach it from its tokens: nothing blocks any more."""
        for token in self._tokens:
            token._attached.discard(self)  # as detach() does: these are calls of every request

    def set_deadline(self, deadline: StreamDeadline) -> None:
        """Let all further operations end by ``deadline``, in the place of ``timeout``'s limits."""
        self._deadline = self._limit = deadline.at
        self._reason = deadline.reason

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Limit the block by ``Timeout.connect`` too."""
        self._limit = min(self._deadline, time.monotonic() + self.timeout.connect)
        self._connecting = True
        yield
        # Not in a finally: after a failure it still matters in which phase it happened.
        self._limit = self._deadline
        self._connecting = False

    @property
    def deadline(self) -> float:
        """Time by which it has to end, on ``time.monotonic``'s scale."""
        return self._deadline

    @property
    def cancelled(self) -> bool:
        """True if one of its tokens is cancelled."""
        for token in self._tokens:  # noqa: SIM110 - any() takes thrice as long, at every socket operation
            if token.cancelled:
                return True
        return False

    def check(self) -> None:
        """Raise Cancelled if it was cancelled."""
        if self.cancelled:
            raise Cancelled("cancelled")

    def left(self) -> float:
        """Return the seconds that the next operation may take.

        Raises:
            Cancelled: it was cancelled.
            TimeoutError: no time is left.
        """
        for token in self._tokens:
            if token.cancelled:
                raise Cancelled("cancelled")
        left = self._limit - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        return left

    def left_to_read(self) -> float:
        """Return the seconds to wait for the next piece of the response; raises as :meth:`left`."""
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

    def count_received(self, size: int) -> None:
        """Count received bytes; raise ResponseTooLarge when they are far too many.

        The reader of the body counts more exactly, but does not see bytes that never become body: interim responses
        without end, or the length of a chunk.
        """
        self.received += size
        limit = self._max_response_bytes
        if limit is not None and self.received > 4 * limit + _MAX_OVERHEAD_BYTES:
            raise ResponseTooLarge(limit)

    def read_timed_out(self) -> None:
        """Note that a wait for the answer ran out of time."""
        self._read_has_timed_out = True

    def hold(self, blocker: Wakeable) -> None:
        """Let a cancel wake ``blocker``, instead of the one held before; raise Cancelled if it is too late."""
        with self._lock:
            # Under the lock: a cancel either is seen here or finds the blocker held.
            self.check()
            self.held = blocker

    def _abandon(self) -> None:
        """Close the socket that a failed exchange still holds: the file of an unread response keeps it open."""
        with self._lock:
            held, self.held = self.held, None
        destroy = getattr(held, "destroy", None)
        if destroy is not None:
            destroy()

    def drop(self, blocker: Wakeable) -> None:
        """Stop holding ``blocker``: from now on, a cancel does not touch it."""
        with self._lock:
            if self.held is blocker:
                self.held = None

    def wake(self) -> None:
        """End the operation that the exchange is blocked in; called by its tokens."""
        with self._lock:
            if self.held is not None:
                self.held.wake()

    def resolve(self, host: str, port: int) -> list[tuple[object, ...]]:
        """Return the addresses of a host for a TCP connection, within the limits."""
        return self._resolver.resolve(host, port, self)

    def preferred_address(self, host: str, port: int) -> Optional[object]:
        """Return the one of several addresses of a host that accepted a connection last, None if none has."""
        return self._resolver.preferred.get((host, port))

    def prefer_address(self, host: str, port: int, address: object) -> None:
        """Try this address of the host first from now on."""
        self._resolver.preferred[host, port] = address

    def failure(self, error: Exception) -> Exception:
        """Return the exception to raise for ``error``: Cancelled, a timeout that names its limit, or ``error``."""
        if self.cancelled:
            return Cancelled("cancelled")
        now = time.monotonic() + _TICK_SECONDS
        timeout = self.timeout
        if now >= self._deadline and self._reason is not None:
            return requests.exceptions.Timeout(self._reason)
        if now >= self._deadline:
            return requests.exceptions.Timeout(f"no complete answer within {timeout.attempt:.3g} s (Timeout.attempt)")
        if self._connecting and now >= self._limit:
            return requests.exceptions.ConnectTimeout(f"no connection within {timeout.connect:.3g} s (Timeout.connect)")
        if self._read_has_timed_out and timeout.read is not None and not self.wants_stream:
            return requests.exceptions.ReadTimeout(f"the server sent nothing for {timeout.read:.3g} s (Timeout.read)")
        return error

    @property
    def undelivered(self) -> bool:
        """True if the server certainly has not processed the request.

        That is certain when a kept-alive connection broke before it had taken the whole request, and nothing came
        back (RFC 9110, 9.2.2).  A connection that breaks later may have been closed while the model worked.
        """
        return self.reused and self.send_failed and not self.received


class Waiter(Protocol):
    """An exchange that waits for a look-up."""

    def left(self) -> float: ...
    def hold(self, blocker: Wakeable) -> None: ...
    def drop(self, blocker: Wakeable) -> None: ...


class Resolver:
    """Looks up names in daemon threads.

    Exchanges that want the same name at the same time share one look-up, so that a dead name server costs one stuck
    thread and not one per worker.

    Attributes:
        preferred: for hosts with several addresses, the one that accepted a connection last.
    """

    def __init__(self) -> None:
        self.preferred: Dict[Lookup, object] = {}
        self._lock = new_lock()
        self._running: Dict[Lookup, Future[List[AddressInfo]]] = {}

    def resolve(self, host: str, port: int, waiter: Waiter) -> List[AddressInfo]:
        """Return the addresses that ``socket.getaddrinfo`` finds for a TCP connection.

        Raises:
            socket.gaierror: the name is not known.
            TimeoutError, Cancelled: ``waiter`` has no time left, or was cancelled.
        """
        host = host.strip("[]")
        try:
            # An address needs no look-up, and no thread.
            return _look_up(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            lookup = self._shared_lookup(host, port)
        done = _WakeableEvent()
        lookup.add_done_callback(lambda _: done.wake())
        waiter.hold(done)
        try:
            done.event.wait(waiter.left())
        finally:
            waiter.drop(done)
        waiter.left()
        return lookup.result(0)

    def _shared_lookup(self, host: str, port: int) -> Future[List[AddressInfo]]:
        with self._lock:
            lookup = self._running.get((host, port))
            if lookup is None:
                lookup = self._running[host, port] = Future()
                threading.Thread(target=self._run, args=(host, port, lookup), name="chatpool-dns", daemon=True).start()
        return lookup

    def _run(self, host: str, port: int, lookup: Future[List[AddressInfo]]) -> None:
        try:
            addresses = _look_up(host, port, 0)
        except BaseException as error:
            self._running.pop((host, port))
            lookup.set_exception(error)
        else:
            self._running.pop((host, port))
            lookup.set_result(addresses)


class _WakeableEvent:
    """An event that a cancel sets, too."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def wake(self) -> None:
        self.event.set()


def _look_up(host: str, port: int, flags: int) -> List[AddressInfo]:
    # "socket.getaddrinfo" is read at each call: tests and gevent replace it.
    return list(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM, 0, flags))
