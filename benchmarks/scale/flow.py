"""Simulation of a job of any size: calls as a flow, hosts, shards and deaths one by one.

The limiter serves hosts in turn, one call each, so hosts that send have equal shares of the quota, and use it up while
one of them can.  :mod:`.calls` makes the same of a small job, call by call, with the real limiter.
"""

from __future__ import annotations

import heapq
from typing import List, Optional, Tuple

from .hosts import Host, Hosts
from .job import Job, Ran

__all__ = ["simulate"]


class _Host(Host):
    """A host: the rows of its shard that have no answer yet, and how far it is with them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Optional[float] = None  # None without a shard
        self.last_row_at: Optional[float] = None  # in rows sent by each host; None while it sends nothing
        self.waiting_calls = 0.0  # in flight after the last row was sent
        self.waits = (0.0, 0.0)  # from when until when it waits for them


def simulate(job: Job) -> Ran:
    """Run the job; the same job gives the same figures."""
    return _Flow(job).run()


class _Flow(Hosts[_Host]):
    def __init__(self, job: Job) -> None:
        full, rest = divmod(job.rows, job.shard_rows)
        super().__init__(job, [float(job.shard_rows)] * full + [float(rest)] * bool(rest))
        self._sent_by_each = 0.0  # rows that a host has sent that was sending from the begin
        self._sending = 0
        self._last_rows: List[Tuple[float, int, int, _Host]] = []

    def run(self) -> Ran:
        self._start_all()
        while self.ran.answered < self._job.rows - 1e-3:
            self._step()
        self.ran.seconds = self._now
        return self.ran

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
        self.ran.max_per_second = max(self.ran.max_per_second, total)
        if total >= self._job.quota_per_second * (1 - 1e-9):
            self.ran.full_seconds = at
        if self._sending:
            self._sent_by_each += (at - self._now) * self._rate
        self._now = at

    # -- hosts ------------------------------------------------------------------------------------------------

    def _new_host(self, number: int) -> _Host:
        return _Host()

    def _hold(self, host: _Host, shard: Optional[float]) -> None:
        host.rows, host.last_row_at, host.waiting_calls = shard, None, 0.0

    def _begin(self, host: _Host) -> None:
        assert host.rows is not None
        self._sending += 1
        host.last_row_at = self._sent_by_each + host.rows
        heapq.heappush(self._last_rows, (host.last_row_at, next(self._order), host.life, host))

    def _has_sent_all(self, host: _Host) -> None:
        assert host.rows is not None
        host.waiting_calls = min(host.rows, self._rate * self._job.latency_seconds)
        host.last_row_at = None
        seconds = self._job.slowest_latency(host.waiting_calls, self._chance)
        if self._rate == self._job.host_per_second:  # its first calls were all sent at once, not at this rate
            seconds = max(0.0, seconds - self._job.latency_seconds)
        self._sending -= 1
        host.waits = (self._now, self._now + seconds)
        self._after(seconds, host, self._finish)

    def _finish(self, host: _Host) -> None:
        assert host.rows is not None
        self.ran.sent += host.rows
        self.ran.answered += host.rows
        self._hold(host, None)
        self._take_shard(host)

    def _lose(self, host: _Host) -> Optional[float]:
        rows, in_flight, sent = host.rows, 0.0, 0.0
        if rows is None:
            return None
        if host.last_row_at is not None:
            sent = rows - (host.last_row_at - self._sent_by_each)
            in_flight = min(sent, self._rate * self._job.latency_seconds)
            self._sending -= 1
        elif host.waiting_calls:
            begin, end = host.waits
            sent, in_flight = rows, host.waiting_calls * (end - self._now) / max(end - begin, 1e-9)
        self.ran.sent += sent
        self.ran.answered += sent - in_flight
        self.ran.repeated += in_flight
        return rows - sent + in_flight
