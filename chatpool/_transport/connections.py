"""urllib3's connections and pools, with sockets that obey their exchange.

Sending a request at less cost than http.client does.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import sys
from functools import cache
from typing import Any, List, Optional

import urllib3.exceptions
from urllib3._collections import HTTPHeaderDict
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from .exchange import Exchange, current_exchange
from .headers import LeanHeaders, ParsedHeaders
from .http1 import BriefResponse
from .sockets import GuardedSocket, guarded_class
from .tcp import is_quiet, open_connection

__all__ = ["LeanConnection", "guarded_pool_class"]


# Beyond this, copying a body costs more than sending it by itself.
_LARGEST_JOINED = 64 * 1024


class LeanConnection:
    """Mixed into a connection class of urllib3's that is one of http.client's."""

    response_class = BriefResponse
    _buffer: List[bytes]  # http.client's: the lines of the head
    _joined_body: Optional[bytes] = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send a request; a small one in one piece, which costs one system call and one wake-up instead of two."""
        if type(headers) is LeanHeaders and type(body) is bytes and 0 < len(body) <= _LARGEST_JOINED:
            self._joined_body, body = body, None
        try:
            super().request(method, url, body=body, headers=headers, **options)  # type: ignore[misc]
            if self._joined_body is not None:
                # Sent without http.client's _send_output: not a version this knows.
                self.send(self._joined_body)  # type: ignore[attr-defined]
        finally:
            self._joined_body = None

    def getresponse(self, *args: Any, **options: Any) -> Any:
        """The answer's head; urllib3 (from 2.0 on) would take it apart once more, header by header."""
        response = super().getresponse(*args, **options)  # type: ignore[misc]
        headers = getattr(getattr(response, "_original_response", response), "msg", None)
        if type(headers) is ParsedHeaders:
            headers.brief = False
            if type(getattr(response, "headers", None)) is HTTPHeaderDict:
                response.headers = headers.as_urllib3_has_them()
        return response

    def putheader(self, header: Any, *values: Any) -> None:
        """Add a header; those of LeanHeaders were checked when their template was made."""
        if self._joined_body is None or len(values) != 1 or not str(values[0]).isprintable():
            super().putheader(header, *values)  # type: ignore[misc]
        else:
            self._buffer.append(f"{header}: {values[0]}".encode("latin-1"))

    def _send_output(self, message_body: Any = None, encode_chunked: bool = False) -> None:
        if self._joined_body is None:
            super()._send_output(message_body, encode_chunked)  # type: ignore[misc]
            return
        message = b"\r\n".join((*self._buffer, b"", self._joined_body))
        self._buffer.clear()
        self._joined_body = None
        self.send(message)  # type: ignore[attr-defined]


class GuardedConnection:
    """Mixed into a connection class of urllib3's: connects within the limits of the thread's exchange."""

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
        """What urllib3 (from 2.0 on) asks before it uses a connection again."""
        return is_quiet(self.sock) or bool(super().is_connected)  # type: ignore[attr-defined,misc]

    def _new_conn(self) -> socket.socket:
        exchange = current_exchange()
        conn: Any = self
        if exchange is None or hasattr(self, "_socks_options"):
            return self._stock_connection(exchange)
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

    def _stock_connection(self, exchange: Optional[Exchange]) -> socket.socket:
        """A connection of urllib3's own making, as through a SOCKS proxy, which resolves names by itself."""
        if exchange is not None:
            # For each step of the way to the proxy and through it; a cancel waits for its end.
            self.timeout = exchange.left()
        sock: Any = super()._new_conn()  # type: ignore[misc]
        if exchange is not None:
            sock.__class__ = guarded_class(sock.__class__)
            sock.adopt(exchange)
        connected: socket.socket = sock
        return connected


def _name_error(conn: Any, error: socket.gaierror) -> NewConnectionError:
    named = getattr(urllib3.exceptions, "NameResolutionError", None)  # from urllib3 2.0 on
    if named is not None:
        resolution: NewConnectionError = named(conn.host, conn, error)
        return resolution
    return NewConnectionError(conn, f"Failed to resolve '{conn.host}' ({error})")


class ConnectionStack(queue.LifoQueue):  # type: ignore[type-arg]  # generic at run time from 3.9 on
    """A ``queue.LifoQueue`` as urllib3's pools use it; each operation is one atomic step of a list's.

    The lock of a LifoQueue would be one more for which all workers queue.
    """

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        """Put one on top.

        Raises:
            queue.Full: there are enough (about: of two threads at the same time, both may find room).
        """
        if self.full():
            raise queue.Full
        self.queue.append(item)

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """Take the top one.

        Raises:
            queue.Empty: there is none; it never waits for one.
        """
        try:
            return self.queue.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        """How many there are."""
        return len(self.queue)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self.queue

    def full(self) -> bool:
        """Whether there are as many as there are threads."""
        return len(self.queue) >= self.maxsize


class GuardedPool(HTTPConnectionPool):
    """Mixed into a pool class of urllib3's: lends each connection to one exchange at a time."""

    QueueCls = ConnectionStack

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - a class attribute in urllib3
        # Looked up at each use: vcrpy puts a class of its own there while a cassette is in.
        return _guarded_connection_class(super().ConnectionCls)

    def _get_conn(self, timeout: Optional[float] = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        exchange = current_exchange()
        if exchange is None:
            return conn
        if exchange.fresh_only and conn.sock is not None:
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
    sock = getattr(sock, "socket", sock)  # TLS inside TLS (an https proxy): urllib3's wrapper around the outer one
    return sock if isinstance(sock, GuardedSocket) else None


@cache
def _guarded_connection_class(base: Any) -> Any:
    if not base.__module__.startswith("urllib3."):
        return base
    # urllib3-future, which installs itself as urllib3, has a protocol engine of its own.
    lean = (LeanConnection,) if issubclass(base, http.client.HTTPConnection) else ()
    return type(base.__name__, (GuardedConnection, *lean, base), {})


@cache
def guarded_pool_class(base: Any) -> Any:
    """The guarded variant of one of urllib3's pool classes."""
    return type(base.__name__, (GuardedPool, base), {})
