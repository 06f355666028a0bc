"""TCP connections, and on Linux what makes them cheap among many threads.

Each system call for which Python lets go of its interpreter costs more than itself when other threads are after that:
one of them is woken up, mostly in vain.  With a time limit of Python's own each ``send`` and ``recv`` is two such
calls, and the look whether an idle connection still stands is another.  Linux can keep the limits itself
(``SO_RCVTIMEO``, ``SO_SNDTIMEO``) and tells how a connection stands in calls that cannot block.

Several addresses of one host, tried side by side: a dead one costs a moment, not its time-out (RFC 8305).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

from urllib3.util.wait import wait_for_read, wait_for_write

from .exchange import AddressInfo, Exchange
from .sockets import UNDER_WAY, GuardedSocket

__all__ = [
    "KernelTimedSocket",
    "PlainSocket",
    "first_to_connect",
    "interleaved",
    "is_quiet",
    "keep_alive_options",
    "open_connection",
]


_HEAD_START = 0.25  # seconds that an address gets before the next one is tried too: RFC 8305, 5
_LOOK_AGAIN = 0.2  # where a cancel does not wake the wait up, it is seen this much later

Begin = Callable[[AddressInfo], GuardedSocket]


def interleaved(found: Sequence[AddressInfo], good: Optional[object] = None) -> List[AddressInfo]:
    """The addresses in the order in which they are tried: the families take turns (RFC 8305, 4).

    Args:
        found: in the resolver's order of preference.
        good: the socket address that answered last time; it goes first.
    """
    families: Dict[object, Deque[AddressInfo]] = {}
    for info in found:
        families.setdefault(info[0], deque()).append(info)
    order: List[AddressInfo] = []
    while families:
        for family in list(families):
            order.append(families[family].popleft())
            if not families[family]:
                del families[family]
    return sorted(order, key=lambda info: info[4] != good)


class _Racers:
    """The connections under way; a cancel wakes them all."""

    def __init__(self) -> None:
        self.sockets: Dict[GuardedSocket, AddressInfo] = {}

    def wake(self) -> None:
        for sock in list(self.sockets):
            sock.wake()

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def first_to_connect(exchange: Exchange, addresses: Sequence[AddressInfo], make: Begin) -> GuardedSocket:
    """A connection to the first address that takes one, within the exchange's limits.

    An address that fails makes room for the next at once; one that hangs does after a quarter of a second, and may
    still win.

    Args:
        exchange: what it is for; the connection works for it.
        addresses: at least one, in the order in which they are tried.
        make: makes a socket for an address, without blocking.

    Raises:
        OSError: the error of the last address; socket.timeout when the time is over.
        Cancelled: the exchange was cancelled.
    """
    racers, waiting = _Racers(), deque(addresses)
    error = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    next_at = 0.0
    exchange.hold(racers)
    try:
        while waiting or racers.sockets:
            left, now = exchange.left(), time.monotonic()
            if waiting and (now >= next_at or not racers.sockets):
                next_at = now + _HEAD_START
                try:
                    _begin(racers, waiting.popleft(), make)
                except OSError as problem:
                    error, next_at = problem, now
                    continue
            pause = min(left, _LOOK_AGAIN, max(0.0, next_at - now) if waiting else left)
            for sock in _ready(list(racers.sockets), pause):
                exchange.check()
                problem_number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not problem_number:
                    del racers.sockets[sock]
                    return _won(exchange, sock)
                error, next_at = OSError(problem_number, os.strerror(problem_number)), now
                del racers.sockets[sock]
                sock.close()
    finally:
        exchange.drop(racers)
        racers.close()
    raise error


def _begin(racers: _Racers, info: AddressInfo, make: Begin) -> None:
    sock = make(info)
    problem = sock.connect_ex(info[4])
    if problem and problem not in UNDER_WAY:
        sock.close()
        raise OSError(problem, os.strerror(problem))
    racers.sockets[sock] = info


def _won(exchange: Exchange, sock: GuardedSocket) -> GuardedSocket:
    try:
        sock.adopt(exchange)
    except BaseException:
        sock.close()
        raise
    return sock


def _ready(sockets: List[GuardedSocket], seconds: float) -> List[GuardedSocket]:
    """Those whose connect has ended, well or not."""
    if not hasattr(select, "poll"):
        _, good, bad = select.select([], sockets, sockets, seconds)
        return list({*good, *bad})
    poll, by_number = select.poll(), {sock.fileno(): sock for sock in sockets}
    for number in by_number:
        poll.register(number, select.POLLOUT)
    return [by_number[number] for number, _ in poll.poll(seconds * 1000)]


SocketOption = Tuple[int, int, int]

# gevent's sockets must not block in the kernel; on 32 bits there are two layouts of a struct timeval.
LINUX = sys.platform == "linux" and socket.socket.__module__ == "socket" and struct.calcsize("P") == 8
_timeval = struct.Struct("@ll").pack

# Of the time for an operation; at most so many seconds, so that a process that was stopped for a while does not begin a
# long one anew.
_KERNELS_PART, _KERNELS_MOST = 0.85, 10.0

_SO_MEMINFO = 55  # since Linux 4.12; the first of its numbers counts what has come and was not read
_TCP_ESTABLISHED = b"\x01"  # the first byte of TCP_INFO, as in include/net/tcp_states.h


class PlainSocket(GuardedSocket):
    """A TCP connection."""


class KernelTimedSocket(PlainSocket):
    """One whose time limits the kernel keeps, for the most part: it blocks in the system call itself.  Linux only.

    The kernel rounds its limits up, by an eighth at most, and begins anew after a signal.  So it is given a part of the
    time, and what is left then is waited for by ``poll``, which is exact; in the main thread, where signals are
    handled, all of it.
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
            if self.exchange is not None and threading.get_ident() == threading.main_thread().ident:
                self._wait(wait_for_read)
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
        # Not the socket's own, which would give the whole time anew to each piece that the other side takes.
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self.send(rest, flags) :]

    def _wait(self, wait: Callable[[Any, float], bool]) -> None:
        """Wait until it can go on; raises socket.timeout when the time is over."""
        left = self._until - time.monotonic()
        if not (left > 0 and wait(self, left)):
            raise socket.timeout("timed out")

    def _limit(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        super()._limit(min(seconds * _KERNELS_PART, _KERNELS_MOST))

    def _set_limit(self, seconds: float) -> None:
        if self._set_to < 0:
            socket.socket.settimeout(self, None)  # its limit was Python's before
        value = _timeval(*divmod(max(1, int(seconds * 1e6)), 10**6))  # of 0 it would have none
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def is_quiet(sock: Any) -> bool:
    """Whether a connection certainly stands and nothing has come that was not read; False where nobody knows."""
    if not LINUX:
        return False
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        unread = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4)
    except (AttributeError, OSError):  # not a socket of this process alone, or not a Linux that knows them
        return False
    return bool(state == _TCP_ESTABLISHED and unread == bytes(4))


CONNECTION = KernelTimedSocket if LINUX else PlainSocket


def open_connection(
    exchange: Exchange,
    address: Tuple[str, int],
    options: Iterable[SocketOption],
    source_address: Optional[Tuple[str, int]] = None,
) -> GuardedSocket:
    """A TCP connection to the first address of a host that answers, within the exchange's limits.

    Raises:
        OSError: the error of the last address; socket.gaierror when the name is not known.
        Cancelled: the exchange was cancelled.
    """
    found = exchange.resolve(*address)
    if not found:
        raise OSError(errno.EADDRNOTAVAIL, f"no address found for {address[0]}")

    def make(info: AddressInfo) -> PlainSocket:
        return _unconnected(info, options, source_address)

    try:
        if len(found) == 1:
            return _connect(exchange, found[0], make)
        sock = first_to_connect(exchange, interleaved(found, exchange.good_address(*address)), make)
    except OSError:
        exchange.check()
        raise
    exchange.remember(*address, sock.getpeername())
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
    """A socket of the address's kind that does not block."""
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


def keep_alive_options() -> list[SocketOption]:
    """Options for ``setsockopt`` that keep NAT entries alive and find dead peers in about 90 seconds.

    Only those that this platform knows: Linux all, macOS TCP_KEEPALIVE for the idle time, old Windows the first two.
    """
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
    for name, value in ((idle, 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options
