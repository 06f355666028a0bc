"""An HTTP server on loopback whose responses are actions: a step of a script becomes a list of them.

From the inside out: actions, the record of a server, one connection, the listener with its sockets and threads.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import struct
import threading
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Set, Union

from .received import MalformedRequestError, RawRequest, ReceivedRequest, RequestReader

__all__ = [
    "Action",
    "Break",
    "Close",
    "Connection",
    "Listener",
    "Send",
    "ServerRecord",
    "Wait",
    "cut_connection",
    "drip",
]

_BACKLOG_CONNECTIONS = 1024
_JOIN_SECONDS = 5.0
_PRUNE_CONNECTIONS = 64  # accepted between two looks for threads that have ended

# select() is limited to small file numbers; epoll and kqueue cost a descriptor per wait.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)

# Linger for zero seconds: close() then sends RST (socket(7)).
_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Send(NamedTuple):
    """Send these bytes, in one piece."""

    head: bytes
    body: bytes = b""


class Wait(NamedTuple):
    """Send nothing for a while; ``None`` seconds: until the client or the server goes away."""

    seconds: Optional[float]


class Close(NamedTuple):
    """End the connection in the orderly way (FIN)."""


class Break(NamedTuple):
    """End the connection with a reset (RST)."""


Action = Union[Send, Wait, Close, Break]


def cut_connection(actions: Sequence[Action], size: int) -> List[Action]:
    """Return ``actions`` up to the first ``size`` bytes that they send."""
    cut: List[Action] = []
    for action in actions:
        if isinstance(action, Send):
            cut.append(Send(action.head[:size], action.body[: max(0, size - len(action.head))]))
            size -= len(action.head) + len(action.body)
            if size <= 0:
                break
        else:
            cut.append(action)
    return cut


def drip(actions: Sequence[Action], *, size: int, every: float, part: str) -> Iterator[Action]:
    """Yield ``actions`` that send ``part`` (head, body or all) in pieces of ``size`` bytes."""
    for action in actions:
        if not isinstance(action, Send):
            yield action
            continue
        whole, dripped = {
            "all": (b"", action.head + action.body),
            "headers": (b"", action.head),
            "body": (action.head, action.body),
        }[part]
        if whole:
            yield Send(whole)
        for start in range(0, len(dripped), size):
            yield Wait(every)
            yield Send(dripped[start : start + size])
        if part == "headers" and action.body:
            yield Send(action.body)


class ServerRecord:
    """The requests and connections of a server, and counts of them.  Every change wakes the waiting threads.

    Attributes:
        condition: guards everything here; its lock may be taken again by the thread that has it.
        requests: the requests, in the order of arrival.
        accepted: connections accepted so far.
        open: connections open now.
        in_flight: requests that have arrived and whose answer is not yet sent.
        max_in_flight: the highest ``in_flight`` so far.
        errors: errors of the user's functions.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.requests: List[ReceivedRequest] = []
        self.accepted = 0
        self.open = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.errors: List[BaseException] = []

    def connected(self) -> int:
        """Count a connection that was accepted, and return its number."""
        with self.condition:
            self.accepted += 1
            self.open += 1
            self.condition.notify_all()
            return self.accepted

    def disconnected(self) -> None:
        """Count a connection that has ended."""
        with self.condition:
            self.open -= 1
            self.condition.notify_all()

    def arrived(self, raw: RawRequest, *, connection: int, time: float) -> ReceivedRequest:
        """Keep a request that has arrived, and return it with its number."""
        with self.condition:
            request = ReceivedRequest(raw, number=len(self.requests), connection=connection, time=time)
            self.requests.append(request)
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self.condition.notify_all()
            return request

    def finished(self) -> None:
        """Count a request that is no longer in flight."""
        with self.condition:
            self.in_flight -= 1
            self.condition.notify_all()

    def failed(self, error: BaseException) -> None:
        """Keep an error of a user's function."""
        with self.condition:
            self.errors.append(error)
            self.condition.notify_all()

    def wait_until(self, predicate: Callable[[], object], timeout: float, awaited: Optional[str] = None) -> None:
        """Wait until ``predicate()`` is true; it is called after every change.

        Raises:
            TimeoutError: it was not within ``timeout`` seconds.
        """
        with self.condition:
            if not self.condition.wait_for(predicate, timeout):
                raise TimeoutError(
                    f"waited {timeout:g} s for {awaited or 'a condition'}; so far {len(self.requests)} requests on "
                    f"{self.accepted} connections, {self.in_flight} in flight, {self.open} connections open"
                )


Serve = Callable[["Connection", RawRequest], None]


class _ConnectionEndError(Exception):
    """The connection has ended, or cannot be used any more."""


class Connection:
    """A connection that a client has opened.

    Args:
        number: its number, from 1.
        sock: its socket.
        wake: a socket that becomes readable when the server closes.
    """

    def __init__(self, number: int, sock: socket.socket, wake: socket.socket) -> None:
        self.number = number
        self._sock = sock
        self._wake = wake
        # Between other threads' shut_down() and what replaces or closes the socket.
        self._lock = threading.Lock()
        self._ended = False

    def run(self, serve: Serve, tls: Optional[ssl.SSLContext]) -> None:
        """Give each request to ``serve`` until one of the two ends closes the connection."""
        # A client may end its connection at any time: that is not an error of the server.
        with contextlib.suppress(_ConnectionEndError, OSError):
            if tls is not None:
                self._encrypt(tls)
            reader = RequestReader(self._sock)
            while True:
                try:
                    request = reader.read()
                except MalformedRequestError as problem:
                    self._refuse(problem)
                    return
                if request is None:
                    return
                serve(self, request)
                if _closes_connection(request):
                    return

    def _encrypt(self, tls: ssl.SSLContext) -> None:
        with self._lock:
            if self._ended:
                raise _ConnectionEndError
            # wrap_socket empties the plain socket: others must find the new one before the handshake blocks.
            self._sock = encrypted = tls.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        encrypted.do_handshake()

    def perform(self, actions: Sequence[Action], finished: Callable[[], None]) -> None:
        """Do ``actions`` in order; call ``finished`` once, before the client can know that the answer is whole.

        Raises:
            _ConnectionEndError: an action ended the connection, or a wait was ended by the client or the server.
            OSError: the client is gone.
        """
        last = _completing_index(actions)
        done = False
        try:
            for index, action in enumerate(actions):
                if index == last:
                    done = True
                    finished()
                self._do(action)
        finally:
            if not done:
                finished()

    def _do(self, action: Action) -> None:
        if isinstance(action, Send):
            self._sock.sendall(action.head + action.body)
        elif isinstance(action, Wait):
            if self._interrupted(action.seconds):
                raise _ConnectionEndError
        else:
            if isinstance(action, Break):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise _ConnectionEndError

    def _interrupted(self, seconds: Optional[float]) -> bool:
        """Wait; True as soon as the server closes or the client goes away."""
        deadline = None if seconds is None else time.monotonic() + seconds
        with _Selector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._sock, selectors.EVENT_READ)
            ready = selector.select(seconds)
            if ready and all(key.fileobj is self._sock for key, _ in ready) and not self._client_gone():
                # The client sent more (a next request, a TLS record): from now on this says nothing about its end.
                selector.unregister(self._sock)
                ready = selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return bool(ready)

    def _client_gone(self) -> bool:
        try:
            # The plain socket's recv: an SSLSocket refuses to peek.
            return not socket.socket.recv(self._sock, 1, socket.MSG_PEEK)
        except OSError:
            return True

    def _refuse(self, problem: MalformedRequestError) -> None:
        text = f"{problem}\n".encode()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n".encode()
        self._sock.sendall(head + text)

    def shut_down(self) -> None:
        """Wake the thread that blocks on this connection, and end it; may be called by any thread."""
        with self._lock, contextlib.suppress(OSError):
            self._ended = True
            # Not SSLSocket.shutdown, which takes the encryption off first.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; only the thread that runs the connection may."""
        with self._lock:
            self._sock.close()


def _completing_index(actions: Sequence[Action]) -> int:
    """Return the index of the action that completes the answer, -1 if no action does."""
    relevant: List[int] = [index for index, action in enumerate(actions) if not isinstance(action, Close)]
    if not relevant:
        return 0
    return -1 if isinstance(actions[relevant[-1]], Wait) else relevant[-1]


def _closes_connection(request: RawRequest) -> bool:
    option = request.headers.get("connection", "").lower()
    return option == "close" or (request.version == "HTTP/1.0" and option != "keep-alive")


class Listener:
    """Accepts connections on a port of 127.0.0.1, one thread for each.

    Args:
        serve: answers a request; called in the thread of its connection.
        record: takes connections.
        tls: the context to serve TLS with, None for plain text.
        port: the port to listen on, 0 for one that the system chooses.
    """

    def __init__(self, serve: Serve, record: ServerRecord, tls: Optional[ssl.SSLContext], port: int = 0) -> None:
        self._serve = serve
        self._record = record
        self._tls = tls
        self._lock = threading.Lock()
        self._open: Set[Connection] = set()
        # Only the accepting thread changes these, and it has ended when they are joined.
        self._threads: List[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG_CONNECTIONS)
        self.port: int = self._socket.getsockname()[1]
        # Readable as soon as the server closes: every waiting thread selects on it too.
        self._wake, self._alarm = socket.socketpair()
        self.closed = False
        self._acceptor = threading.Thread(target=self._accept, name=f"FakeServer-{self.port}", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening, end every connection and wait, and join the threads; a second call does nothing."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._alarm.close()
        self._acceptor.join()
        self._socket.close()
        self.drop_connections()
        if _join(self._threads):
            self._wake.close()

    def drop_connections(self) -> None:
        """End every connection that is open now."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.shut_down()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            # A client may be gone again before it is accepted: that must not block.
            self._socket.setblocking(False)
            while not any(key.fileobj is self._wake for key, _ in selector.select()):
                with contextlib.suppress(OSError):
                    self._start(self._socket.accept()[0])

    def _start(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self._record.connected(), sock, self._wake)
        thread = threading.Thread(
            target=self._run, args=(connection,), name=f"FakeServer-{self.port}-{connection.number}", daemon=True
        )
        if connection.number % _PRUNE_CONNECTIONS == 0:
            self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        with self._lock:
            self._open.add(connection)
        thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            connection.run(self._serve, self._tls)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
            self._record.disconnected()


def _join(threads: List[threading.Thread]) -> bool:
    """Join ``threads`` within a time limit, as they may be in a user's function; return True if all have ended."""
    deadline = time.monotonic() + _JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
