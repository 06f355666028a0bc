"""The calls to one (endpoint, model) that are ready to be sent, and whether they may be."""

from __future__ import annotations

from collections import deque
from typing import Deque, List

from ..policy.health import LineHealth
from .call import QUEUED, Call, LineKey

__all__ = ["Line"]


class Line:
    """A queue of its own for each (endpoint, model): one that has to wait never holds up another.

    Not thread-safe: the scheduler holds its lock.

    Attributes:
        health: what the latest answers say.
        parked: how many of its calls wait for their next attempt.
    """

    __slots__ = ("_due", "_fresh", "health", "key", "parked")

    def __init__(self, key: LineKey) -> None:
        self.key = key
        self.health = LineHealth()
        self.parked = 0
        self._due: Deque[Call] = deque()  # parked before, ready now: they go first
        self._fresh: Deque[Call] = deque()

    def add(self, call: Call) -> None:
        """A fresh call."""
        self._fresh.append(call)

    def add_due(self, call: Call) -> None:
        """A call whose wait is over."""
        self._due.append(call)

    def has_calls(self) -> bool:
        """Whether any call is queued."""
        for queue in (self._due, self._fresh):
            while queue and queue[0].state != QUEUED:
                queue.popleft()  # it runs, or was given up where it stood
        return bool(self._due or self._fresh)

    def wait(self, now: float) -> float:
        """Seconds until one of its calls may be sent: 0 for now, ``inf`` for not before something happens."""
        return self.health.gate.wait(now)

    def first(self) -> Call:
        """The call that goes next; there is one.  It leaves the queue once it is not queued any more."""
        # A probe of a server that is down may well be lost: it costs least where least was tried.
        order = (self._fresh, self._due) if self.health.gate.closed else (self._due, self._fresh)
        return next(queue for queue in order if queue)[0]

    def queued(self) -> List[Call]:
        """All calls that are queued."""
        return [call for queue in (self._due, self._fresh) for call in queue if call.state == QUEUED]

    def on_their_way(self) -> int:
        """How many calls are in flight or parked."""
        return self.health.gate.in_flight + self.parked

    def held(self, now: float) -> float:
        """Seconds it has been held because the server was down."""
        return self.health.gate.held(now)
