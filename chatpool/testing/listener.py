"""The sockets and threads of a server on loopback."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from typing import List, Optional, Set

from .connection import Connection, Serve
from .record import Record

__all__ = ["Listener"]

_BACKLOG = 1024
_JOIN_SECONDS = 5.0
_PRUNE_EVERY = 64


class Listener:
    """Accepts connections on a port of 127.0.0.1, one thread for each.

    Args:
        serve: what to do with a request; called in the thread of its connection.
        record: told about connections.
        tls: the context to serve TLS with, None for plain text.
        port: the port to listen on, 0 for one that the system chooses.
    """

    def __init__(self, serve: Serve, record: Record, tls: Optional[ssl.SSLContext], port: int = 0) -> None:
        self._serve = serve
        self._record = record
        self._tls = tls
        self._lock = threading.Lock()
        self._live: Set[Connection] = set()
        # Only the accepting thread changes these, and it has ended when they are joined.
        self._threads: List[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        # Readable from the moment of closing: every thread that waits looks at it too.
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
            live = list(self._live)
        for connection in live:
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
        if connection.number % _PRUNE_EVERY == 0:
            self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        with self._lock:
            self._live.add(connection)
        thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            connection.run(self._serve, self._tls)
        finally:
            with self._lock:
                self._live.discard(connection)
            connection.close()
            self._record.disconnected()


def _join(threads: List[threading.Thread]) -> bool:
    """Wait for ``threads``, but not for ever: they may be in functions of the user's.  Whether all have ended."""
    deadline = time.monotonic() + _JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
