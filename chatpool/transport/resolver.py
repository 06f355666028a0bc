"""Name resolution that can be given up: ``getaddrinfo`` cannot be interrupted, so a thread of its own runs it."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from typing import Any, Dict, List, Protocol, Tuple

from urllib3.util.connection import allowed_gai_family

from ..locks import new_lock
from .cancel import Wakeable

__all__ = ["AddressInfo", "Resolver", "Waiter"]

AddressInfo = Tuple[Any, ...]  # one entry of socket.getaddrinfo's list
Lookup = Tuple[str, int]


class Waiter(Protocol):
    """Who waits for a name: an exchange."""

    def left(self) -> float: ...
    def hold(self, blocker: Wakeable) -> None: ...
    def drop(self, blocker: Wakeable) -> None: ...


class Resolver:
    """Looks names up in daemon threads.  Those who want the same name at the same time share one look-up,
    so that a dead name server costs one stuck thread and not one per worker.

    Attributes:
        good: of hosts with several addresses, the one that took a connection last.
    """

    def __init__(self) -> None:
        self.good: Dict[Lookup, object] = {}
        self._lock = new_lock()
        self._running: Dict[Lookup, Future[List[AddressInfo]]] = {}

    def resolve(self, host: str, port: int, waiter: Waiter) -> List[AddressInfo]:
        """What ``socket.getaddrinfo`` finds for a TCP connection.

        Raises:
            socket.gaierror: the name is not known.
            TimeoutError, Cancelled: from ``waiter``, which gave up.
        """
        host = host.strip("[]")
        try:
            # An address needs no look-up, and no thread.
            return _look_up(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            lookup = self._shared(host, port)
        done = _Done()
        lookup.add_done_callback(lambda _: done.wake())
        waiter.hold(done)
        try:
            done.event.wait(waiter.left())
        finally:
            waiter.drop(done)
        waiter.left()
        return lookup.result(0)

    def _shared(self, host: str, port: int) -> Future[List[AddressInfo]]:
        with self._lock:
            lookup = self._running.get((host, port))
            if lookup is None:
                lookup = self._running[host, port] = Future()
                threading.Thread(target=self._run, args=(host, port, lookup), name="chatpool-dns", daemon=True).start()
        return lookup

    def _run(self, host: str, port: int, lookup: Future[List[AddressInfo]]) -> None:
        try:
            found = _look_up(host, port, 0)
        except BaseException as error:
            self._running.pop((host, port))
            lookup.set_exception(error)
        else:
            self._running.pop((host, port))
            lookup.set_result(found)


class _Done:
    """A Wakeable event."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def wake(self) -> None:
        self.event.set()


def _look_up(host: str, port: int, flags: int) -> List[AddressInfo]:
    # "socket.getaddrinfo" is looked up late: tests and gevent put another one there.
    return list(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM, 0, flags))
