"""TCP connections: to the first address of a host that answers, and on Linux cheap among many threads.

Several addresses of one host are tried side by side, so that a dead one costs a moment and not its time-out ("happy
eyeballs", RFC 8305).

Each system call for which Python releases its interpreter lock costs more than itself when other threads wait for that:
one of them is woken up, mostly in vain.  With a time limit kept by Python each ``send`` and ``recv`` is two such calls,
and the check of an idle connection is another.  Linux can keep the limits itself (``SO_RCVTIMEO``, ``SO_SNDTIMEO``) and
tells the state of a connection in calls that cannot block.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

from urllib3.util.wait import wait_for_read, wait_for_write

from .exchange import AddressInfo, Exchange
from .sockets import CANCEL_CHECK_SECONDS, IN_PROGRESS_ERRORS, GuardedSocket, wait_in_parts

__all__ = [
    "KernelTimedSocket",
    "PlainSocket",
    "interleave_families",
    "is_reusable",
    "keep_alive_options",
    "open_connection",
]


_ATTEMPT_DELAY_SECONDS = 0.25  # before the next address is tried too (RFC 8305, 5: connection attempt delay)

SocketFactory = Callable[[AddressInfo], GuardedSocket]
SocketOption = Tuple[int, int, int]

# gevent's sockets must not block in the kernel; on 32 bits there are two layouts of a struct timeval.
LINUX = sys.platform == "linux" and socket.socket.__module__ == "socket" and struct.calcsize("P") == 8
_timeval = struct.Struct("@ll").pack

# Share of the time for an operation; at most so many seconds, so that a process that was stopped for a while does not
# begin a long one anew.
_KERNEL_SHARE, _MAX_KERNEL_SECONDS = 0.85, 10.0

_SO_MEMINFO = 55  # since Linux 4.12; the first of its numbers counts bytes that were received and not read
_TCP_ESTABLISHED = b"\x01"  # the first byte of TCP_INFO, as in include/net/tcp_states.h


def open_connection(
    exchange: Exchange,
    address: Tuple[str, int],
    options: Iterable[SocketOption],
    source_address: Optional[Tuple[str, int]] = None,
) -> GuardedSocket:
    """Return a TCP connection to the first address of a host that answers, within the exchange's limits.

    Raises:
        OSError: the error of the last address; socket.gaierror when the name is not known.
        Cancelled: the exchange was cancelled.
    """
    addresses = exchange.resolve(*address)
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, f"no address found for {address[0]}")

    def make(info: AddressInfo) -> PlainSocket:
        return _unconnected(info, options, source_address)

    try:
        if len(addresses) == 1:
            return _connect(exchange, addresses[0], make)
        ordered = interleave_families(addresses, exchange.preferred_address(*address))
        sock = _happy_eyeballs_connect(exchange, ordered, make)
    except OSError:
        exchange.check()
        raise
    exchange.prefer_address(*address, sock.getpeername())
    return sock


def _connect(exchange: Exchange, info: AddressInfo, make: Callable[[AddressInfo], PlainSocket]) -> PlainSocket:
    sock = make(info)
    try:
        sock.adopt(exchange)
        sock.connect_until(info[4], exchange.left())
    except BaseException:
        sock.close()
        raise
    return sock


def _unconnected(
    info: AddressInfo, options: Iterable[SocketOption], source_address: Optional[Tuple[str, int]]
) -> PlainSocket:
    """Return a socket for the address that does not block."""
    family, kind, protocol, _, _ = info
    sock = CONNECTION(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        if source_address:
            sock.bind(source_address)
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    return sock


def _happy_eyeballs_connect(exchange: Exchange, addresses: Sequence[AddressInfo], make: SocketFactory) -> GuardedSocket:
    """Return a connection to the first address that accepts one, within the exchange's limits.

    After an address that fails the next one is tried at once; after one that hangs, a quarter of a second later, and
    the earlier one may still win.

    Args:
        exchange: the exchange that the connection will work for.
        addresses: at least one, in the order in which they are tried.
        make: makes a socket for an address, without blocking.

    Raises:
        OSError: the error of the last address; socket.timeout when the time is over.
        Cancelled: the exchange was cancelled.
    """
    attempts, waiting = _ConnectionAttempts(), deque(addresses)
    error = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    next_at = 0.0
    exchange.hold(attempts)
    try:
        while waiting or attempts.sockets:
            left, now = exchange.left(), time.monotonic()
            if waiting and (now >= next_at or not attempts.sockets):
                next_at = now + _ATTEMPT_DELAY_SECONDS
                try:
                    _start_attempt(attempts, waiting.popleft(), make)
                except OSError as problem:
                    error, next_at = problem, now
                    continue
            pause = min(left, CANCEL_CHECK_SECONDS, max(0.0, next_at - now) if waiting else left)
            for sock in _finished_attempts(list(attempts.sockets), pause):
                exchange.check()
                error_number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not error_number:
                    del attempts.sockets[sock]
                    return _adopt_winner(exchange, sock)
                error, next_at = OSError(error_number, os.strerror(error_number)), now
                del attempts.sockets[sock]
                sock.close()
    finally:
        exchange.drop(attempts)
        attempts.close()
    raise error


def _start_attempt(attempts: _ConnectionAttempts, info: AddressInfo, make: SocketFactory) -> None:
    sock = make(info)
    error_number = sock.connect_ex(info[4])
    if error_number and error_number not in IN_PROGRESS_ERRORS:
        sock.close()
        raise OSError(error_number, os.strerror(error_number))
    attempts.sockets[sock] = info


def _adopt_winner(exchange: Exchange, sock: GuardedSocket) -> GuardedSocket:
    try:
        sock.adopt(exchange)
    except BaseException:
        sock.close()
        raise
    return sock


def _finished_attempts(sockets: List[GuardedSocket], seconds: float) -> List[GuardedSocket]:
    """Return the sockets whose connect has succeeded or failed."""
    if not hasattr(select, "poll"):
        _, connected, failed = select.select([], sockets, sockets, seconds)
        return list({*connected, *failed})
    poll, by_number = select.poll(), {sock.fileno(): sock for sock in sockets}
    for number in by_number:
        poll.register(number, select.POLLOUT)
    return [by_number[number] for number, _ in poll.poll(seconds * 1000)]


class _ConnectionAttempts:
    """Connection attempts under way; a cancel wakes them all."""

    def __init__(self) -> None:
        self.sockets: Dict[GuardedSocket, AddressInfo] = {}

    def wake(self) -> None:
        for sock in list(self.sockets):
            sock.wake()

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def interleave_families(addresses: Sequence[AddressInfo], preferred: Optional[object] = None) -> List[AddressInfo]:
    """Return the addresses in the order in which they are tried: the families take turns (RFC 8305, 4).

    Args:
        addresses: in the resolver's order of preference.
        preferred: the socket address that answered last time; it goes first.
    """
    families: Dict[object, Deque[AddressInfo]] = {}
    for info in addresses:
        families.setdefault(info[0], deque()).append(info)
    order: List[AddressInfo] = []
    while families:
        for family in list(families):
            order.append(families[family].popleft())
            if not families[family]:
                del families[family]
    return sorted(order, key=lambda info: info[4] != preferred)


class PlainSocket(GuardedSocket):
    """A TCP connection."""

    def _may_have_read(self) -> bool:
        return False


class KernelTimedSocket(PlainSocket):
    """A connection whose time limits the kernel keeps, for the most part: it blocks in the system call.  Linux only.

    The kernel rounds its limits up, by an eighth at most, and begins anew after a signal.  So it is given a share of
    the time, and the rest is waited for by ``poll``, which is exact; in the main thread, where signals are handled,
    all of it.
    """

    _until = 0.0  # on the monotonic clock, when the operation has to end

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        received: bytes = self._read(socket.socket.recv, *args, **kwargs)
        return received

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        received: int = self._read(socket.socket.recv_into, *args, **kwargs)
        return received

    def _read(self, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._before_read()
        try:
            self._watch_for_signals()
            while True:
                try:
                    return self._after_read(read(self, *args, **kwargs))
                except BlockingIOError:
                    if self.exchange is None:
                        raise
                    self._wait(wait_for_read)
        except socket.timeout:
            self._on_read_timeout()
            raise

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._before_write()
        try:
            while True:
                try:
                    return socket.socket.send(self, *args, **kwargs)
                except BlockingIOError:
                    if self.exchange is None:
                        raise
                    self._wait(wait_for_write)
        except OSError:
            self._on_write_error()
            raise

    def sendall(self, data: Any, flags: int = 0) -> None:
        # Not socket.sendall, which would give the whole time anew to each piece that the other side takes.
        rest = memoryview(data) if type(data) is bytes else memoryview(data).cast("B")
        while rest:
            rest = rest[self.send(rest, flags) :]

    def _wait(self, wait: Callable[[Any, float], bool]) -> None:
        """Wait until it can go on; raises socket.timeout when the time is over."""
        if not wait_in_parts(wait, self, self._until - time.monotonic()):
            raise socket.timeout("timed out")

    def _limit(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        share = seconds * _KERNEL_SHARE
        if share > _MAX_KERNEL_SECONDS:
            share = _MAX_KERNEL_SECONDS
        super()._limit(share)

    def _set_limit(self, seconds: float) -> None:
        if self._applied_limit < 0:
            socket.socket.settimeout(self, None)  # its limit was kept by Python before
        value = _timeval(*divmod(max(1, int(seconds * 1e6)), 10**6))  # of 0 it would have none
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


CONNECTION = KernelTimedSocket if LINUX else PlainSocket


def is_reusable(sock: Any) -> bool:
    """Return whether a kept-alive connection is certainly open, with no unread bytes; False where that is not known."""
    if not LINUX:
        return False
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        unread = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4)
    except (AttributeError, OSError):  # not a socket of this process alone, or not a Linux that knows them
        return False
    return bool(state == _TCP_ESTABLISHED and unread == bytes(4))


def keep_alive_options() -> list[SocketOption]:
    """Return options for ``setsockopt`` that keep NAT entries alive and find dead peers in about 90 seconds.

    Only those that this platform has: Linux all, macOS TCP_KEEPALIVE for the idle time, old Windows the first two.
    """
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
    for name, value in ((idle, 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options
