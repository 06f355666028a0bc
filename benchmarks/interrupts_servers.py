"""Servers that leave their callers blocked in one state each, and tell when all of them are."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextlib import contextmanager
from typing import Callable, ContextManager, Iterator, Mapping, NamedTuple, Optional

from chatpool.testing import FakeServer, RateLimited, ReceivedRequest, Stall, Step

__all__ = ["STATES", "Blocker"]

_LONGEST = 60.0  # seconds
_SETTLE = 0.3  # seconds: from the start of a blocking call, which can be seen, to the block, which cannot


class Blocker(NamedTuple):
    """A server.

    Attributes:
        base_url: where the callers send.
        wait: blocks until all of them are blocked.
        block_names: whether they have to see to it themselves, by a resolver that hangs.
    """

    base_url: str
    wait: Callable[[], None]
    block_names: bool = False


def _settle() -> None:
    time.sleep(_SETTLE)


@contextmanager
def _reading(callers: int) -> Iterator[Blocker]:
    with FakeServer(lambda request: Stall()) as server:

        def wait() -> None:
            server.wait_for(callers, _LONGEST)
            _settle()

        yield Blocker(server.base_url, wait)


@contextmanager
def _parked(callers: int) -> Iterator[Blocker]:
    """Nobody is answered before all have come: so all are parked, whatever the first answer would change."""
    together = threading.Barrier(callers)

    def refuse(request: ReceivedRequest) -> Optional[Step]:
        if request.number < callers:
            together.wait(_LONGEST)
        return RateLimited(100)

    with FakeServer(refuse) as server:

        def wait() -> None:
            server.wait_for(callers, _LONGEST)
            server.wait_until(lambda: server.in_flight == 0, _LONGEST)
            _settle()

        try:
            yield Blocker(server.base_url, wait)
        finally:
            together.abort()


@contextmanager
def _connecting(callers: int) -> Iterator[Blocker]:
    """The queue of the listening socket is full: connections hang in the TCP handshake."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield Blocker(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", _settle)


@contextmanager
def _shaking_hands(callers: int) -> Iterator[Blocker]:
    """TLS that is greeted and does not greet back."""
    greeted = threading.Event()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))

        def listen() -> None:
            connections = [stack.enter_context(listener.accept()[0]) for _ in range(callers)]
            for connection in connections:
                connection.recv(1, socket.MSG_PEEK)
            greeted.set()

        def wait() -> None:
            if not greeted.wait(_LONGEST):
                raise RuntimeError("not all callers have begun the TLS handshake")
            _settle()

        threading.Thread(target=listen, daemon=True).start()
        yield Blocker(f"https://127.0.0.1:{listener.getsockname()[1]}/v1", wait)


@contextmanager
def _resolving(callers: int) -> Iterator[Blocker]:
    yield Blocker("http://nowhere.invalid/v1", _settle, block_names=True)


STATES: Mapping[str, Callable[[int], ContextManager[Blocker]]] = {
    "reads": _reading,
    "TCP connects": _connecting,
    "TLS handshakes": _shaking_hands,
    "name resolution": _resolving,
    "waits for the next attempt": _parked,
}
"""By the state that the callers are blocked in: a function that makes a server for a number of them."""
