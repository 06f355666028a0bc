"""Several addresses of one host, tried side by side: a dead one costs a moment, not its time-out (RFC 8305)."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Sequence

from .deadline import Exchange
from .resolver import AddressInfo
from .sockets import UNDER_WAY, GuardedSocket

__all__ = ["first_to_connect", "interleaved"]

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
