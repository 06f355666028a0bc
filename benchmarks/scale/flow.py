"""Simulation of a job of any size: calls as a flow, hosts, shards and deaths one by one.

The limiter serves hosts in turn, one call each, so hosts that send have equal shares of the quota, and use it up while
one of them can.  :mod:`.calls` makes the same of a small job, call by call, with the real limiter.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, List, Optional, Tuple

from .job import Job, Ran

__all__ = ["simulate"]


@dataclass
class _Shard:
    """Rows of a shard that have no answer yet."""

    rows: float
    was_held: bool = False


class _Host:
    """A host: the shard that it holds, and how far it is with it."""

    def __init__(self) -> None:
        self.life = 0  # counts deaths: what was to happen before one does not any more
        self.shard: Optional[_Shard] = None
        self.last_row_at: Optional[float] = None  # in rows sent by each host; None while it sends nothing
        self.waiting_calls = 0.0  # in flight after the last row was sent
        self.waits = (0.0, 0.0)  # from when until when it waits for them


def simulate(job: Job) -> Ran:
    """Run the job; the same job gives the same figures."""
    return _Flow(job).run()


_Timer = Tuple[float, int, int, _Host, Callable[[_Host], None]]


class _Flow:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._chance = random.Random(job.seed)
        self._ran = Ran()
        self._now = 0.0
        self._sent_by_each = 0.0  # rows that a host has sent that was sending from the begin
        self._sending = 0
        self._order = itertools.count()
        self._timers: List[_Timer] = []
        self._last_rows: List[Tuple[float, int, int, _Host]] = []
        full, rest = divmod(job.rows, job.shard_rows)
        self._shards: Deque[_Shard] = deque(_Shard(job.shard_rows) for _ in range(full))
        if rest:
            self._shards.append(_Shard(rest))
        self._idle: List[_Host] = []

    def run(self) -> Ran:
        for _ in range(self._job.hosts):
            self._start(_Host())
        while self._ran.answered < self._job.rows - 1e-3:
            self._step()
        self._ran.seconds = self._now
        return self._ran

    # -- time -------------------------------------------------------------------------------------------------

    @property
    def _rate(self) -> float:
        """Calls a second of each host that sends."""
        return min(self._job.host_per_second, self._job.quota_per_second / max(1, self._sending))

    def _step(self) -> None:
        """Go on to the next event."""
        while self._last_rows and self._last_rows[0][2] != self._last_rows[0][3].life:
            heapq.heappop(self._last_rows)
        sent_at = float("inf")
        if self._last_rows:
            sent_at = self._now + (self._last_rows[0][0] - self._sent_by_each) / self._rate
        if self._timers and self._timers[0][0] <= sent_at:
            at, _, life, host, action = heapq.heappop(self._timers)
            self._pass_until(at)
            if life == host.life:
                action(host)
        else:
            self._pass_until(sent_at)
            self._has_sent_all(heapq.heappop(self._last_rows)[3])

    def _pass_until(self, at: float) -> None:
        total = self._sending * self._rate
        self._ran.max_per_second = max(self._ran.max_per_second, total)
        if total >= self._job.quota_per_second * (1 - 1e-9):
            self._ran.full_seconds = at
        if self._sending:
            self._sent_by_each += (at - self._now) * self._rate
        self._now = at

    def _after(self, seconds: float, host: _Host, action: Callable[[_Host], None]) -> None:
        if seconds < float("inf"):
            heapq.heappush(self._timers, (self._now + seconds, next(self._order), host.life, host, action))

    # -- hosts ------------------------------------------------------------------------------------------------

    def _start(self, host: _Host) -> None:
        self._after(self._job.life(self._chance), host, self._die)
        self._take_shard(host)

    def _take_shard(self, host: _Host) -> None:
        if not self._shards:
            self._idle.append(host)
            return
        host.shard = self._shards.popleft()
        self._ran.takeovers += host.shard.was_held
        self._after(self._job.shard_start_seconds, host, self._send)

    def _send(self, host: _Host) -> None:
        assert host.shard is not None
        self._sending += 1
        host.last_row_at = self._sent_by_each + host.shard.rows
        heapq.heappush(self._last_rows, (host.last_row_at, next(self._order), host.life, host))

    def _has_sent_all(self, host: _Host) -> None:
        assert host.shard is not None
        host.waiting_calls = min(host.shard.rows, self._rate * self._job.latency_seconds)
        host.last_row_at = None
        seconds = self._job.slowest_latency(host.waiting_calls, self._chance)
        if self._rate == self._job.host_per_second:  # its first calls were all sent at once, not at this rate
            seconds = max(0.0, seconds - self._job.latency_seconds)
        self._sending -= 1
        host.waits = (self._now, self._now + seconds)
        self._after(seconds, host, self._finish)

    def _finish(self, host: _Host) -> None:
        assert host.shard is not None
        self._ran.sent += host.shard.rows
        self._ran.answered += host.shard.rows
        host.shard, host.waiting_calls = None, 0.0
        self._take_shard(host)

    def _die(self, host: _Host) -> None:
        self._ran.deaths += 1
        shard, in_flight, sent = host.shard, 0.0, 0.0
        if shard is not None and host.last_row_at is not None:
            sent = shard.rows - (host.last_row_at - self._sent_by_each)
            in_flight = min(sent, self._rate * self._job.latency_seconds)
            self._sending -= 1
        elif shard is not None and host.waiting_calls:
            begin, end = host.waits
            sent, in_flight = shard.rows, host.waiting_calls * (end - self._now) / max(end - begin, 1e-9)
        elif host in self._idle:
            self._idle.remove(host)
        host.life += 1
        host.shard, host.last_row_at, host.waiting_calls = None, None, 0.0
        self._after(self._job.host_return_seconds, host, self._start)
        if shard is not None:
            self._ran.sent += sent
            self._ran.answered += sent - in_flight
            self._ran.repeated += in_flight
            rest = _Shard(shard.rows - sent + in_flight, was_held=True)
            self._after(self._job.takeover_seconds, _Host(), lambda _: self._release(rest))

    def _release(self, shard: _Shard) -> None:
        """Let another host take the shard of one that died."""
        self._shards.appendleft(shard)
        if self._idle:
            self._take_shard(self._idle.pop())
