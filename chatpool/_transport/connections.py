"""urllib3's connections and pools, with sockets that obey their exchange: time limits, cancelling, safe reuse."""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import sys
from functools import cache
from typing import Any, Optional

import urllib3.exceptions
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import Timeout

from .exchange import Exchange, current_exchange
from .http1 import FastPathConnection
from .sockets import GuardedSocket, guarded_class
from .tcp import is_reusable, open_connection

__all__ = ["ConnectionStack", "guarded_pool_class"]


class GuardedConnection:
    """Mixin for a connection class of urllib3: connects within the limits of the thread's exchange."""

    def connect(self) -> None:
        """Connect, through the proxy and TLS where there are any."""
        exchange = current_exchange()
        if exchange is None:
            super().connect()  # type: ignore[misc]
            return
        exchange.peer = (getattr(self, "_tunnel_host", None) or self.host).strip("[]")  # type: ignore[attr-defined]
        try:
            with exchange.connecting():
                super().connect()  # type: ignore[misc]
        except BaseException:
            if isinstance(exchange.held, GuardedSocket):
                exchange.held.destroy()  # up to Python 3.10, http.client leaves a failed tunnel's file open
            raise
        sock: Any = self.sock  # type: ignore[attr-defined]
        if isinstance(sock, ssl.SSLSocket) and sock.version() is None:
            # A connection that breaks before the handshake comes back from wrap_socket as if it were encrypted.
            raise ConnectionResetError("the connection broke before the TLS handshake")

    @property
    def is_connected(self) -> bool:
        """True if the connection can be used again; urllib3 (from 2.0 on) asks."""
        return is_reusable(self.sock) or bool(super().is_connected)  # type: ignore[attr-defined,misc]

    def _new_conn(self) -> socket.socket:
        exchange = current_exchange()
        conn: Any = self
        if exchange is None or hasattr(self, "_socks_options"):
            return self._urllib3_connection(exchange)
        address = conn._dns_host, conn.port
        try:
            sock = open_connection(exchange, address, conn.socket_options or (), conn.source_address)
        except socket.gaierror as error:
            raise _name_error(conn, error) from error
        except socket.timeout as error:
            raise ConnectTimeoutError(self, f"Connection to {conn.host} timed out") from error
        except OSError as error:
            raise NewConnectionError(conn, f"Failed to establish a new connection: {error}") from error
        sys.audit("http.client.connect", self, *address)
        return sock

    def _urllib3_connection(self, exchange: Optional[Exchange]) -> socket.socket:
        """Return a connection made by urllib3 itself, as through a SOCKS proxy, which resolves names by itself."""
        if exchange is not None:
            # For each step to the proxy and through it; a cancel waits until the step has ended.
            self.timeout = exchange.left()
        sock: Any = super()._new_conn()  # type: ignore[misc]
        if exchange is not None:
            sock.__class__ = guarded_class(sock.__class__)
            sock.adopt(exchange)
        connected: socket.socket = sock
        return connected


def _name_error(conn: Any, error: socket.gaierror) -> NewConnectionError:
    error_class = getattr(urllib3.exceptions, "NameResolutionError", None)  # from urllib3 2.0 on
    if error_class is not None:
        resolution: NewConnectionError = error_class(conn.host, conn, error)
        return resolution
    return NewConnectionError(conn, f"Failed to resolve '{conn.host}' ({error})")


class ConnectionStack(queue.LifoQueue):  # type: ignore[type-arg]  # generic at run time from 3.9 on
    """A ``queue.LifoQueue`` as urllib3's pools use it; each operation is one atomic step of a list.

    The lock of a LifoQueue would be one more that all workers contend for.
    """

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        """Put a connection on top.

        Raises:
            queue.Full: there are enough (about: two threads may put one at the same time).
        """
        if self.full():
            raise queue.Full
        self.queue.append(item)

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """Take the top connection, without ever waiting for one.

        Raises:
            queue.Empty: there is none.
        """
        try:
            return self.queue.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        """Return the number of connections."""
        return len(self.queue)

    def empty(self) -> bool:
        """Return whether there is none."""
        return not self.queue

    def full(self) -> bool:
        """Return whether there are as many as there are threads."""
        return len(self.queue) >= self.maxsize


class GuardedPool(HTTPConnectionPool):
    """Mixin for a pool class of urllib3: lends each connection to one exchange at a time."""

    QueueCls = ConnectionStack

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - a class attribute in urllib3
        # Read at each use: vcrpy puts another class there while a cassette is in.
        return _guarded_connection_class(super().ConnectionCls)

    def _get_timeout(self, timeout: Any) -> Any:
        # requests makes one for each request, which urllib3 would copy and check twice more.
        if type(timeout) is Timeout and getattr(timeout, "_start_connect", True) is None:
            return timeout
        return super()._get_timeout(timeout)

    def _get_conn(self, timeout: Optional[float] = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        exchange = current_exchange()
        if exchange is None:
            return conn
        if exchange.needs_fresh_connection and conn.sock is not None:
            conn.close()
            conn = self._new_conn()
        sock = _guarded_socket(conn)
        try:
            exchange.start_on(reused=sock is not None)
            if sock is not None:
                sock.adopt(exchange)
        except BaseException:
            self._put_conn(conn)
            raise
        return conn

    def _put_conn(self, conn: Any) -> None:
        sock = _guarded_socket(conn)
        if sock is not None and not sock.release():
            conn.close()
        try:
            self.pool.put(conn, block=False)  # type: ignore[union-attr]
        except (AttributeError, queue.Full):  # closed, or more threads than workers: no warning for either
            if conn is not None:
                conn.close()


def _guarded_socket(conn: Any) -> Optional[GuardedSocket]:
    sock = getattr(conn, "sock", None)
    if isinstance(sock, GuardedSocket):
        return sock
    sock = getattr(sock, "socket", None)  # TLS inside TLS (an https proxy): urllib3's wrapper around the outer one
    return sock if isinstance(sock, GuardedSocket) else None


@cache
def _guarded_connection_class(base: Any) -> Any:
    if not base.__module__.startswith("urllib3."):
        return base
    # urllib3-future, which installs itself as urllib3, does not use http.client.
    fast_path = (FastPathConnection,) if issubclass(base, http.client.HTTPConnection) else ()
    return type(base.__name__, (GuardedConnection, *fast_path, base), {})


@cache
def guarded_pool_class(base: Any) -> Any:
    """Return the guarded variant of a pool class of urllib3."""
    return type(base.__name__, (GuardedPool, base), {})
