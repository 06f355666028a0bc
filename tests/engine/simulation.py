"""The real engine against simulated servers: no threads, no sockets, no real time, thousands of calls a second.

Only two things are replaced: workers are events instead of threads, and an exchange is an answer of the simulated
server some seconds later.  What happens before and after it are the engine's own steps.
"""

from __future__ import annotations

import heapq
import itertools
import math

from chatpool._engine.attempt import AttemptResult
from chatpool._engine.call import Call, CallOptions
from chatpool._engine.completion import CallFuture
from chatpool._engine.dispatcher import Dispatcher
from chatpool._engine.endpoints import EndpointClient, Endpoints, EndpointSpec
from chatpool._engine.engine import Engine
from chatpool._policy.retry import RetryDecider
from chatpool._transport import KeyAuth, Transport, TransportSettings
from chatpool.clock import Clock
from chatpool.config import RetryPolicy, Timeout
from chatpool.types import ChatRequest

REQUEST = ChatRequest({"model": "m", "messages": []})
_numbers = itertools.count(1)


def options(policy=None, max_workers=1, total=1e6, **others):
    """Options of calls that have all the time they need."""
    return CallOptions(Timeout(total=total), RetryDecider(policy or RetryPolicy(), max_workers), Dispatcher(), **others)


def new_call(endpoint="s", *, request=REQUEST, call_options=None, sink=None, now=0.0, item=None):
    """A call that is in no queue yet."""
    return Call(
        request,
        call_options or options(),
        sink or CallFuture(),
        id=next(_numbers),
        upstream_key=(endpoint, request.model),
        created_at=now,
        item=item,
    )


class _Waiter:
    """The lock that a condition releases to notify the one who waits."""

    notified = False

    def release(self):
        self.notified = True


class SimulatedClock(Clock):
    """Time is that of the latest event; while a worker waits, the others' events take place."""

    def __init__(self):
        self.time, self.stopped = 0.0, False
        self._events, self._tick = [], itertools.count()

    def now(self):
        return self.time

    def at(self, time, action):
        """Call ``action`` at that time."""
        heapq.heappush(self._events, (time, next(self._tick), action))

    def run(self, until=math.inf, waiter=None):
        """Let the events up to ``until`` take place, or until the waiter is notified."""
        while self._events and self._events[0][0] <= until and not self.stopped and not (waiter and waiter.notified):
            self.time, _, action = heapq.heappop(self._events)
            action()

    def wait(self, condition, seconds=None):
        waiter, due = _Waiter(), self.time + (math.inf if seconds is None else seconds)
        condition._waiters.append(waiter)
        self.run(due, waiter)
        if not waiter.notified:
            condition._waiters.remove(waiter)
            if not self.stopped:
                self.time = due
        return waiter.notified


class _Workers:
    """An executor whose workers are events of the simulation."""

    def __init__(self, simulation):
        self._simulation = simulation

    def submit(self, work):
        self._simulation.start_worker()

    def shutdown(self, wait=True):
        """No thread to wait for."""


class _Sink(CallFuture):
    """Tells the simulation how its call has ended, and of errors that end other calls too."""

    def __init__(self, simulation):
        super().__init__()
        self._simulation = simulation

    def deliver(self, call, outcome):
        super().deliver(call, outcome)
        self._simulation.outcomes.append((self._simulation.clock.time, call, outcome))

    def refuse(self, call, scope, error):
        self._simulation.fatal, self._simulation.clock.stopped = (scope, error), True


class Simulation:
    """``servers`` maps names to functions of the time, which return (seconds that the answer takes, verdict).

    ``sends`` has a (time, endpoint) for each attempt, ``outcomes`` a (time, call, outcome) for each call, and
    ``fatal`` the (scope, error) that ended all calls.
    """

    def __init__(self, servers, max_workers, specs=None, policy=None, total=1e6):
        self.servers, self.max_workers = servers, max_workers
        self.clock = SimulatedClock()
        self.sends, self.outcomes, self.fatal = [], [], None
        self._in_flight = 0
        self._options = options(policy, max_workers, total)
        clients = [
            EndpointClient(spec, Transport(TransportSettings(f"http://{spec.name}", KeyAuth(None))))
            for spec in specs or [EndpointSpec(name) for name in servers]
        ]
        self.engine = Engine(lambda: Endpoints(clients), max_workers=max_workers, clock=self.clock)
        self.engine._executor = _Workers(self)

    def submit(self, count):
        """Queue fresh calls."""
        self.engine.submit([self.engine.make_call(REQUEST, self._options, _Sink(self)) for _ in range(count)])
        return self

    def run(self):
        """Go on until nothing is left to do, or until an error ends all calls."""
        self.clock.run()
        return self

    @property
    def succeeded(self):
        """The times at which calls succeeded."""
        return [time for time, _, outcome in self.outcomes if outcome.ok]

    @property
    def failed(self):
        """The outcomes of calls that failed."""
        return [outcome for _, _, outcome in self.outcomes if not outcome.ok]

    def sent_between(self, start, end, endpoint=None):
        """The number of attempts that were sent in [start, end)."""
        return sum(start <= time < end and endpoint in (None, name) for time, name in self.sends)

    def sent_to(self, endpoint, start=0.0, end=math.inf):
        """The number of attempts that were sent to an endpoint."""
        return self.sent_between(start, end, endpoint)

    # -- workers ----------------------------------------------------------------------------------------

    def start_worker(self):
        self.engine._scheduler.worker_started()
        self.clock.at(self.clock.time, self._next_step)

    def _next_step(self):
        step = self.engine._scheduler.next_step(self.clock.time)
        self.engine._start_workers(step.more_workers)
        if step.call is not None:
            self._begin(step.call)
        elif step.wait:
            self.engine._scheduler.wait_for_work(self.clock)
            self.clock.at(self.clock.time, self._next_step)

    def _begin(self, call):
        attempter = self.engine._attempter
        started = attempter.begin(call)
        if started.refusal is not None:
            self._conclude(call, AttemptResult(decision=started.refusal))
            return
        self._in_flight += 1
        assert self._in_flight <= self.max_workers
        self.sends.append((self.clock.time, call.upstream_key[0]))
        seconds, verdict = self.servers[call.upstream_key[0]](self.clock.time)
        self.clock.at(self.clock.time + seconds, lambda: self._returned(call, started, verdict))

    def _returned(self, call, started, verdict):
        self._in_flight -= 1
        self._conclude(call, self.engine._attempter.conclude(call, started, verdict))

    def _conclude(self, call, result):
        wait = self.engine._conclude(call, result)
        if wait is not None:
            self.engine._park(call, wait)
        self._next_step()
