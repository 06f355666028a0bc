"""Sockets that keep the time limits of the exchange they work for, and end when it is cancelled."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
import time
from functools import cache
from typing import Any, Callable, Optional, cast

from urllib3.util.wait import wait_for_read, wait_for_write

from ..clock import interruptible
from .exchange import Exchange, current_exchange

__all__ = ["IN_PROGRESS_ERRORS", "GuardedSocket", "TLSSocket", "guarded_class", "wait_in_parts"]

# To set a socket's time limit is a system call.  So it is set to a little more than needed, which fits the next
# exchanges too, and set again only when it is off by more than that.
_SLACK_SHARE, _MAX_SLACK_SECONDS = 0.01, 0.025  # the share is of the limit

# Where shutting a socket down does not wake up a connect (it does on Linux), a cancel is seen this much later.
CANCEL_CHECK_SECONDS = 0.2

IN_PROGRESS_ERRORS = frozenset(
    {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}
)
"""Results of ``connect_ex`` of a socket that does not block, while it connects."""


class GuardedSocket(socket.socket):
    """Socket whose blocking operations get the time that the exchange has left, and end when it is cancelled.

    Attributes:
        exchange: the exchange it works for, None while its connection is idle.
    """

    exchange: Optional[Exchange] = None
    _applied_limit: float = -1.0

    def adopt(self, exchange: Exchange) -> None:
        """Work for ``exchange`` from now on; raises Cancelled if it was cancelled."""
        exchange.hold(self)
        self.exchange = exchange

    def release(self) -> bool:
        """Work for no exchange any more; return False if the last one left the connection unusable."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return True
        exchange.drop(self)
        return not (exchange.cancelled or exchange.send_failed)

    def wake(self) -> None:
        """End the operation that the owner is blocked in, from another thread."""
        try:
            # Not SSLSocket.shutdown: that drops the encryption, and the owner's next send would be readable.
            socket.socket.shutdown(self, socket.SHUT_RDWR)
        except OSError:
            return  # not connected any more: no thread can be blocked in it

    def connect_until(self, address: Any, seconds: float) -> None:
        """Connect, for an exchange, within ``seconds``.

        Not with ``connect``: a cancel that comes just before it would find no connection to shut down, and the
        connect would then hang on.

        Raises:
            socket.timeout: there is no connection yet.
            Cancelled: the exchange was cancelled.
        """
        exchange = self.exchange
        assert exchange is not None
        deadline = time.monotonic() + seconds
        error_number = self.connect_ex(address)
        exchange.check()
        if error_number in IN_PROGRESS_ERRORS:
            while not wait_for_write(self, min(deadline - time.monotonic(), CANCEL_CHECK_SECONDS)):
                exchange.check()
                if time.monotonic() >= deadline:
                    raise socket.timeout("timed out")
            error_number = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            exchange.check()
        if error_number:
            raise OSError(error_number, os.strerror(error_number))
        self._limit(exchange.left())

    def shutdown(self, how: int) -> None:
        """Shut the connection down, never its encryption alone."""
        socket.socket.shutdown(self, how)

    def settimeout(self, value: Optional[float]) -> None:
        """Set the time limit; ignored while it works for an exchange, which sets its own."""
        if self.exchange is None:
            self._applied_limit = -1.0
            super().settimeout(value)

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self._before_read()
        try:
            self._watch_for_signals()
            return cast(bytes, self._after_read(super().recv(*args, **kwargs)))
        except OSError as error:
            self._on_read_error(error)
            raise

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._before_read()
        try:
            self._watch_for_signals()
            return cast(int, self._after_read(super().recv_into(*args, **kwargs)))
        except OSError as error:
            self._on_read_error(error)
            raise

    # **kwargs because gevent passes timeout= from its sendall to its send.
    def send(self, *args: Any, **kwargs: Any) -> int:
        self._before_write()
        try:
            return super().send(*args, **kwargs)
        except OSError:
            self._on_write_error()
            raise

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._before_write()
        try:
            super().sendall(*args, **kwargs)
        except OSError:
            self._on_write_error()
            raise

    def detach(self) -> int:
        """Hand the descriptor over, as ``SSLContext.wrap_socket`` has it; a cancel no longer touches it."""
        if self.exchange is not None:
            self.exchange.drop(self)
        return super().detach()

    def destroy(self) -> None:
        """Close, even while files still refer to it."""
        descriptor = self.detach()
        if descriptor >= 0:
            socket.close(descriptor)

    def _real_close(self, *args: Any) -> None:
        # Before the descriptor is free for another socket, so that a cancel cannot hit that one.
        if self.exchange is not None:
            self.exchange.drop(self)
        super()._real_close(*args)  # type: ignore[misc]  # what close() calls once no file refers to the socket

    def _before_read(self) -> None:
        if self.exchange is not None:
            self._limit(self.exchange.left_to_read())

    def _watch_for_signals(self) -> None:
        """Wait for bytes in the main thread, in parts, so that no Ctrl-C is lost: see :func:`interruptible`.

        Raises:
            socket.timeout: none have come in time.
        """
        if self.exchange is not None and threading.get_ident() == threading.main_thread().ident:
            seconds = self.exchange.left_to_read()
            if not (self._may_have_read() or wait_in_parts(wait_for_read, self, seconds)):
                raise socket.timeout("timed out")

    def _may_have_read(self) -> bool:
        """Return whether there may be bytes that were read from the connection, and not yet given to the caller."""
        return True

    def _before_write(self) -> None:
        if self.exchange is not None:
            self._limit(self.exchange.left())

    def _limit(self, seconds: float) -> None:
        # Without min(), here and where this is overridden: it is done before every send and every receive.
        slack = seconds * _SLACK_SHARE
        if slack > _MAX_SLACK_SECONDS:
            slack = _MAX_SLACK_SECONDS
        if not seconds <= self._applied_limit <= seconds + 2 * slack:
            self._set_limit(seconds + slack)
            self._applied_limit = seconds + slack

    def _set_limit(self, seconds: float) -> None:
        super().settimeout(seconds)

    def _after_read(self, received: Any) -> Any:
        if self.exchange is not None:
            if received:
                self.exchange.count_received(received if isinstance(received, int) else len(received))
            else:
                # The end of a connection that was woken up must not pass for the end of the answer.
                self.exchange.check()
        return received

    def _on_read_error(self, error: OSError) -> None:
        if isinstance(error, socket.timeout):
            self._on_read_timeout()

    def _on_read_timeout(self) -> None:
        if self.exchange is not None:
            self.exchange.read_timed_out()

    def _on_write_error(self) -> None:
        if self.exchange is not None:
            self.exchange.send_failed = True


def wait_in_parts(wait: Callable[[Any, float], bool], sock: GuardedSocket, seconds: float) -> bool:
    """Wait until a connection is ready; in the main thread in parts, see :func:`interruptible`.

    Args:
        wait: urllib3's ``wait_for_read`` or ``wait_for_write``.
        sock: the connection.
        seconds: the longest wait.

    Returns:
        False when the time is over.
    """
    ends_at = time.monotonic() + seconds
    while seconds > 0:
        if wait(sock, cast(float, interruptible(seconds))):
            return True
        seconds = ends_at - time.monotonic()
    return False


@cache
def guarded_class(base: Any) -> Any:
    """Return a guarded variant of a foreign class of sockets; an instance's class may be replaced by it."""
    return type(base.__name__, (GuardedSocket, base), {})


def _forget_tls_errors() -> None:
    """Empty OpenSSL's queue of errors of this thread.

    CPython 3.14 leaves errors there that it has reported as an OSError; the next operation of the thread, on any
    connection, then seems to have failed.
    """
    # It is emptied whenever a connection is made. This one leads nowhere.
    _unused_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


@cache
def _unused_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return context


class TLSSocket(GuardedSocket, ssl.SSLSocket):
    """A TLS connection, made by a context whose ``sslsocket_class`` it is."""

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> TLSSocket:
        exchange, context = current_exchange(), kwargs.get("context")
        # urllib3 1.26 names no host that is an address, which a context of the user's wants to check.
        if exchange is not None and not kwargs.get("server_hostname") and getattr(context, "check_hostname", False):
            kwargs["server_hostname"] = exchange.peer
        return cast(TLSSocket, super()._create(*args, **kwargs))  # type: ignore[misc]

    def _may_have_read(self) -> bool:
        return self.pending() > 0

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        try:
            return super().recv(*args, **kwargs)
        except OSError as error:
            # ssl itself checks the connection before there is any TLS: if it was reset, it leaves a socket open to
            # which no caller has a reference.
            if getattr(self, "_sslobj", None) is None and error.errno not in (errno.ENOTCONN, errno.EINVAL):
                self.close()
            raise

    def do_handshake(self, *args: Any) -> None:
        """Shake hands within the limits of the thread's exchange."""
        exchange = current_exchange()
        try:
            if exchange is None:
                super().do_handshake(*args)  # gevent's takes no argument, ssl's an optional one
            else:
                # The plain socket, which was held until now, has handed its descriptor over.
                self.adopt(exchange)
                self._shake_hands(exchange, *args)
        except BaseException:
            self.close()  # up to Python 3.11, ssl itself does so for OSErrors only
            _forget_tls_errors()
            raise

    def _on_read_error(self, error: OSError) -> None:
        super()._on_read_error(error)
        _forget_tls_errors()

    def _on_write_error(self) -> None:
        super()._on_write_error()
        _forget_tls_errors()

    def _shake_hands(self, exchange: Exchange, *args: Any) -> None:
        # Piece by piece, without blocking: gevent's own would give every wait for a piece the whole time anew.
        self._limit(0)
        while True:
            left = exchange.left()
            try:
                return super().do_handshake(*args)
            except ssl.SSLWantReadError:
                wait_in_parts(wait_for_read, self, left)
            except ssl.SSLWantWriteError:
                wait_in_parts(wait_for_write, self, left)
