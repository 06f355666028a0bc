"""One connection of a server: requests in, actions out."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import struct
import threading
import time
from typing import Callable, List, Optional, Sequence

from .actions import Action, Break, Close, Send, Wait
from .received import MalformedRequestError, RawRequest, RequestReader

__all__ = ["Connection", "ConnectionEndError"]

# select() is limited to small file numbers; epoll and kqueue cost a descriptor per wait.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)

# Linger for zero seconds: close() then sends RST (socket(7)).
_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)

Serve = Callable[["Connection", RawRequest], None]


class ConnectionEndError(Exception):
    """The connection has been ended, or is of no use any more."""


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
        # What a client does to its connection is the client's business, and an end is an end.
        with contextlib.suppress(ConnectionEndError, OSError):
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
                if _last_of_connection(request):
                    return

    def _encrypt(self, tls: ssl.SSLContext) -> None:
        with self._lock:
            if self._ended:
                raise ConnectionEndError
            # wrap_socket empties the plain socket: others must find the new one before the handshake blocks.
            self._sock = encrypted = tls.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        encrypted.do_handshake()

    def perform(self, actions: Sequence[Action], finished: Callable[[], None]) -> None:
        """Do ``actions`` in order; ``finished`` is called once, before the client can know that the answer is whole.

        Raises:
            ConnectionEndError: an action ended the connection, or a wait was ended by the client or the server.
            OSError: the client is gone.
        """
        last = _last_to_matter(actions)
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
                raise ConnectionEndError
        else:
            if isinstance(action, Break):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise ConnectionEndError

    def _interrupted(self, seconds: Optional[float]) -> bool:
        """Wait; True as soon as the server closes or the client goes away."""
        end = None if seconds is None else time.monotonic() + seconds
        with _Selector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._sock, selectors.EVENT_READ)
            ready = selector.select(seconds)
            if ready and all(key.fileobj is self._sock for key, _ in ready) and not self._client_gone():
                # The client sent more (a next request, a TLS record): from now on this says nothing about its end.
                selector.unregister(self._sock)
                ready = selector.select(None if end is None else max(0.0, end - time.monotonic()))
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


def _last_to_matter(actions: Sequence[Action]) -> int:
    """The index of the action that completes the answer, -1 when the answer never completes."""
    matters: List[int] = [index for index, action in enumerate(actions) if not isinstance(action, Close)]
    if not matters:
        return 0
    return -1 if isinstance(actions[matters[-1]], Wait) else matters[-1]


def _last_of_connection(request: RawRequest) -> bool:
    asked = request.headers.get("connection", "").lower()
    return asked == "close" or (request.version == "HTTP/1.0" and asked != "keep-alive")
