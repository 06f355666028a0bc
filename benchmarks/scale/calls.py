"""Simulation of a small job, call by call, with the limiter that Redis runs (:mod:`chatpool._quota.gcra`).

It shows what :mod:`.flow` takes for granted: no minute has more than the quota, hosts get equal shares of it, and only
calls in flight of a host that dies are sent again.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Deque, Dict, List, Optional

from chatpool._quota.gcra import State, correct, reserve

from .hosts import Host, Hosts
from .job import Job

__all__ = ["Calls", "fullest_minute"]


class _Host(Host):
    """A host: the rows of its shard that were not sent, and those in flight."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.shard: Deque[int] = deque()
        self.in_flight: Dict[int, float] = {}  # by row, the moment it was reserved for
        self.has_slot = False


class Calls(Hosts[_Host]):
    """The job, call by call.

    Attributes:
        sends: when each call was sent, in seconds.
        by_host: number of calls of each host.
        answers: number of answers of each row.
    """

    def __init__(self, job: Job) -> None:
        starts = range(0, job.rows, job.shard_rows)
        super().__init__(job, (deque(range(start, min(job.rows, start + job.shard_rows))) for start in starts))
        self._limit = State()
        self.sends: List[float] = []
        self.by_host = [0] * job.hosts
        self.answers = [0] * job.rows

    def run(self) -> Calls:
        """Run it to its end."""
        self._start_all()
        while self.ran.answered < self._job.rows:
            self._now, _, life, host, action = heapq.heappop(self._timers)
            if life == host.life:
                action(host)
        self.ran.seconds, self.ran.sent = self._now, len(self.sends)
        return self

    def _new_host(self, number: int) -> _Host:
        return _Host(number)

    def _hold(self, host: _Host, shard: Optional[Deque[int]]) -> None:
        host.shard, host.in_flight, host.has_slot = shard or deque(), {}, False

    def _begin(self, host: _Host) -> None:
        self._ask(host)

    def _ask(self, host: _Host) -> None:
        """Reserve the moment of the next call; a host holds one such slot at a time."""
        job = self._job
        if host.has_slot or not host.shard or len(host.in_flight) >= job.workers:
            return
        host.has_slot = True
        amount = {"requests": 1.0, "tokens": job.tokens_per_row}
        slot = reserve(self._limit, self._now, job.rates, **amount, max_wait=1e9, sharer=float(host.number))
        self._after(slot.wait, host, self._send)

    def _send(self, host: _Host) -> None:
        row = host.shard.popleft()
        host.has_slot = False
        host.in_flight[row] = self._now
        self.sends.append(self._now)
        self.by_host[host.number] += 1
        self._after(self._job.latency(self._chance), host, lambda host: self._answer(host, row))
        self._ask(host)

    def _answer(self, host: _Host, row: int) -> None:
        correct(self._limit, self._now, self._job.rates, at=host.in_flight.pop(row), tokens=0.0)
        self.answers[row] += 1
        self.ran.answered += 1
        if host.shard:
            self._ask(host)
        elif not host.in_flight:
            self._take_shard(host)

    def _lose(self, host: _Host) -> Optional[Deque[int]]:
        self.ran.repeated += len(host.in_flight)
        return deque([*host.in_flight, *host.shard]) or None


def fullest_minute(sends: List[float]) -> int:
    """Return the most calls in any 60 seconds."""
    most, first = 0, 0
    for last, at in enumerate(sends):
        while sends[first] <= at - 60.0:
            first += 1
        most = max(most, last - first + 1)
    return most
