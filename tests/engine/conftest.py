"""Scheduler and retry policy against a simulated server: no threads, no real time, thousands of calls a second."""

from __future__ import annotations

import heapq
import itertools
import math

import pytest

from chatpool._engine.call import Call, CallOptions
from chatpool._engine.completion import CallFuture
from chatpool._engine.dispatcher import Dispatcher
from chatpool._engine.scheduler import Scheduler
from chatpool._policy.retry import RetryDecider
from chatpool.clock import Clock
from chatpool.config import RetryPolicy, Timeout
from chatpool.types import ChatRequest


class SimulatedClock(Clock):
    """Time is what the simulation says; a wait is noted instead of waited."""

    def __init__(self):
        self.time, self.wake_at = 0.0, math.inf

    def now(self):
        return self.time

    def wait(self, condition, seconds=None):
        self.wake_at = self.time + (math.inf if seconds is None else seconds)
        return False


class Simulation:
    """``server(now)`` answers an attempt with (seconds it takes, verdict)."""

    def __init__(self, server, max_workers, policy=None, total=1e6):
        self.server, self.max_workers = server, max_workers
        self.clock = SimulatedClock()
        self.scheduler = Scheduler(max_workers)
        self.retrier = RetryDecider(policy or RetryPolicy(), max_workers)
        self.options = CallOptions(Timeout(total=total), self.retrier, Dispatcher())
        self.sends, self.succeeded, self.failed, self.fatal = [], [], [], None
        self._events, self._tick, self._made = [], itertools.count(), 0
        self.in_flight = self.most_in_flight = 0

    def submit(self, count):
        """Queue fresh calls."""
        calls = []
        for _ in range(count):
            self._made += 1
            request, sink = ChatRequest({"model": "m"}), CallFuture()
            calls.append(Call(request, self.options, sink, id=self._made, line=("s", "m"), created=self.clock.time))
        self._hire(self.scheduler.submit(calls))

    def run(self, until=math.inf):
        """Go on until nothing is left to do, a fatal error, or ``until``."""
        while self._events and self.fatal is None and self._events[0][0] <= until:
            self.clock.time, _, action = heapq.heappop(self._events)
            action()
        return self

    def sent_between(self, start, end):
        """How many attempts were sent in [start, end)."""
        return sum(start <= sent < end for sent in self.sends)

    def _at(self, time, action):
        heapq.heappush(self._events, (time, next(self._tick), action))

    def _hire(self, count):
        for _ in range(count):
            self.scheduler.worker_started()
            self._at(self.clock.time, self._ask)

    def _ask(self):
        step = self.scheduler.next_step(self.clock.time)
        self._hire(step.more_workers)
        if step.call is not None:
            self._send(step.call)
        elif step.wait:
            self.clock.wake_at = self.clock.time
            self.scheduler.wait_for_work(self.clock)
            self._at(self.clock.wake_at, self._ask)

    def _send(self, call):
        now = self.clock.time
        if call.first_sent is None:
            call.first_sent = now
        call.attempts += 1
        self.sends.append(now)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        assert self.in_flight <= self.max_workers
        seconds, verdict = self.server(now)
        self._at(now + seconds, lambda: self._returned(call, verdict))

    def _returned(self, call, verdict):
        now = self.clock.time
        self.in_flight -= 1
        if verdict.kind == "success":
            won, workers = self.scheduler.succeed(call, verdict, now)
            assert won
            self._hire(workers)
            self.succeeded.append(now)
        else:
            self._failed(call, verdict, now)
        self._ask()

    def _failed(self, call, verdict, now):
        line = self.scheduler.returned(call, verdict, now)
        call.retry = call.retry or self.retrier.start(call.first_sent)
        deadline = call.deadline(self.scheduler.held(call, now))
        decision = self.retrier.decide(
            call.retry, verdict, attempt=call.attempts, now=now, deadline=deadline, snapshot=line
        )
        if decision.wait is not None:
            self.scheduler.park(call, now + decision.wait)
            return
        self.scheduler.end(call)
        self.failed.append(call)
        if decision.scope != "call":
            self.fatal = decision


@pytest.fixture
def simulate():
    """The class, which tests cannot import from here."""
    return Simulation
