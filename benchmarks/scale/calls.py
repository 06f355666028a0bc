"""Simulation of a small job, call by call, with the limiter that Redis runs (:mod:`chatpool._quota.gcra`).

It shows what :mod:`.flow` takes for granted: no minute has more than the quota, hosts get equal shares of it, and only
calls in flight of a host that dies are sent again.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from typing import Callable, Deque, Dict, List, Tuple

from chatpool._quota.gcra import State, correct, reserve

from .job import Job, Ran

__all__ = ["Calls", "fullest_minute"]


class _Host:
    """A host: the rows of its shard that were not sent, and those in flight."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.life = 0  # counts deaths: what was to happen before one does not any more
        self.shard: Deque[int] = deque()
        self.in_flight: Dict[int, float] = {}  # by row, the moment it was reserved for
        self.has_slot = False


class Calls:
    """The job, call by call.

    Attributes:
        sends: when each call was sent, in seconds.
        by_host: number of calls of each host.
        answers: number of answers of each row.
        ran: the figures.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._chance = random.Random(job.seed)
        self._now = 0.0
        self._events: List[Tuple[float, int, int, _Host, Callable[[_Host], None]]] = []
        self._order = itertools.count()
        self._limit = State()
        starts = range(0, job.rows, job.shard_rows)
        self._shards = deque(deque(range(start, min(job.rows, start + job.shard_rows))) for start in starts)
        self._released: List[Deque[int]] = []
        self._idle: List[_Host] = []
        self.sends: List[float] = []
        self.by_host = [0] * job.hosts
        self.answers = [0] * job.rows
        self.ran = Ran()

    def run(self) -> Calls:
        """Run it to its end."""
        for number in range(self._job.hosts):
            self._start(_Host(number))
        while self.ran.answered < self._job.rows:
            self._now, _, life, host, action = heapq.heappop(self._events)
            if life == host.life:
                action(host)
        self.ran.seconds, self.ran.sent = self._now, len(self.sends)
        return self

    def _after(self, seconds: float, host: _Host, action: Callable[[_Host], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._order), host.life, host, action))

    def _start(self, host: _Host) -> None:
        self._after(self._job.life(self._chance), host, self._die)
        self._take_shard(host)

    def _take_shard(self, host: _Host) -> None:
        if not self._shards:
            self._idle.append(host)
            return
        host.shard = self._shards.popleft()
        self._after(self._job.shard_start_seconds, host, self._ask)

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

    def _die(self, host: _Host) -> None:
        self.ran.deaths += 1
        self.ran.repeated += len(host.in_flight)
        rest = deque([*host.in_flight, *host.shard])
        if host in self._idle:
            self._idle.remove(host)
        host.life += 1
        host.shard, host.in_flight, host.has_slot = deque(), {}, False
        self._after(self._job.host_return_seconds, host, self._start)
        if rest:
            self._after(self._job.takeover_seconds, _Host(-1), lambda _: self._release(rest))

    def _release(self, rest: Deque[int]) -> None:
        self.ran.takeovers += 1
        self._shards.appendleft(rest)
        if self._idle:
            self._take_shard(self._idle.pop())


def fullest_minute(sends: List[float]) -> int:
    """Return the most calls in any 60 seconds."""
    most, first = 0, 0
    for last, at in enumerate(sends):
        while sends[first] <= at - 60.0:
            first += 1
        most = max(most, last - first + 1)
    return most
