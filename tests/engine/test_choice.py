"""Which endpoint a call goes to: no threads, no sockets, no time but the one the test passes."""

from __future__ import annotations

import heapq
import itertools

import pytest

from chatpool import APIError, AuthenticationError
from chatpool._engine.call import Call, CallOptions
from chatpool._engine.completion import CallFuture
from chatpool._engine.dispatcher import Dispatcher
from chatpool._engine.endpoints import EndpointClient, Endpoints
from chatpool._engine.failover import Failover
from chatpool._engine.scheduler import Scheduler
from chatpool._engine.upstreams import EndpointSpec
from chatpool._policy.retry import RetryDecider
from chatpool.config import Limits, RetryPolicy, Timeout
from chatpool.types import ChatRequest, Verdict

OK, DOWN = Verdict("success", value="x"), Verdict("unavailable", error=APIError("down"))
WRONG_KEY = Verdict("fatal", "run", AuthenticationError("wrong key"))


def busy(wait):
    return Verdict("throttled", error=APIError("busy"), wait_hint=wait)


class Simulation:
    """Servers by name, each a function of the time that says (seconds it takes, verdict)."""

    def __init__(self, servers, max_workers, plans=None, policy=None):
        self.servers, self.max_workers = servers, max_workers
        plans = plans or [EndpointSpec(name) for name in servers]
        self.scheduler = Scheduler(max_workers, plans)
        self.failover = Failover(Endpoints([EndpointClient(plan, None) for plan in plans]), self.scheduler)
        self.retrier = RetryDecider(policy or RetryPolicy(), max_workers)
        self.options = CallOptions(Timeout(total=1e6), self.retrier, Dispatcher())
        self.home, self.now = plans[0].name, 0.0
        self.sends, self.done, self.failed = [], [], []
        self._events, self._tick, self._free = [], itertools.count(), max_workers

    def submit(self, count):
        request, line = ChatRequest({"model": "m"}), (self.home, "m")
        calls = [
            Call(request, self.options, CallFuture(), id=number, line=line, created=self.now) for number in range(count)
        ]
        self.scheduler.submit(calls)
        return self

    def run(self):
        """Until nothing is left to do; a worker that finds nothing asks again a millisecond later."""
        while True:
            while self._free and self._send_one():
                pass
            if not self._events and self.scheduler.idle():
                return self
            if self._events and (self._events[0][0] <= self.now + 0.001 or not self._free):
                self.now, _, call, verdict = heapq.heappop(self._events)
                self._returned(call, verdict)
            else:
                self.now += 0.001

    def sent_to(self, name, start=0.0, end=1e9):
        return sum(where == name and start <= at < end for at, where in self.sends)

    def _send_one(self):
        call = self.scheduler.next_step(self.now).call
        if call is None:
            return False
        self._free -= 1
        call.attempts += 1
        call.first_sent = self.now if call.first_sent is None else call.first_sent
        self.sends.append((self.now, call.line[0]))
        seconds, verdict = self.servers[call.line[0]](self.now)
        heapq.heappush(self._events, (self.now + seconds, next(self._tick), call, verdict))
        return True

    def _returned(self, call, verdict):
        self._free += 1
        sent_at = call.sent_at
        if verdict.kind == "success":
            self.scheduler.succeed(call, verdict, self.now)
            self.done.append((self.now, call.id))
            return
        line = self.scheduler.returned(call, verdict, self.now)
        call.retry = call.retry or self.retrier.start(call.first_sent)
        decision = self.retrier.decide(
            call.retry, verdict, attempt=call.attempts, now=self.now, deadline=call.deadline(), snapshot=line
        )
        decision = self.failover.follow(call, verdict, decision, self.now, self.now - sent_at)
        if decision.wait is not None:
            self.scheduler.park(call, self.now + decision.wait)
        else:
            self.scheduler.end(call)
            self.failed.append(decision)


def steady(seconds, verdict=OK):
    return lambda now: (seconds, verdict)


def limited(rate, seconds=0.05):
    """A server that takes ``rate`` calls a second and refuses the others with the exact wait."""
    free_at = [0.0]

    def answer(now):
        free_at[0] = max(free_at[0], now - 0.2)
        if free_at[0] > now:
            return 0.01, busy(free_at[0] - now)
        free_at[0] += 1 / rate
        return seconds, OK

    return answer


def test_equal_endpoints_share_the_calls():
    simulation = Simulation({"a": steady(0.1), "b": steady(0.1)}, 10).submit(1000).run()
    assert 450 < simulation.sent_to("a") < 550
    assert len(simulation.done) == 1000


def test_who_answers_sooner_gets_more_and_the_run_is_as_fast_as_it_can_be():
    simulation = Simulation({"a": steady(0.1), "b": steady(1.0)}, 22).submit(2000).run()
    assert simulation.sent_to("a") > 8 * simulation.sent_to("b") > 0
    assert simulation.now < 1.15 * 2000 * 0.1 / 20


def test_configured_limits_are_each_used_to_the_full():
    plans = [
        EndpointSpec(name, Limits(requests_per_minute=rate * 60)) for name, rate in (("a", 10), ("b", 20), ("c", 30))
    ]
    simulation = Simulation(dict.fromkeys("abc", steady(0.05)), 30, plans).submit(1200).run()
    assert simulation.now < 1.25 * 1200 / 60


def test_found_limits_are_each_used_to_the_full():
    servers = {"a": limited(20), "b": limited(40), "c": limited(80)}
    simulation = Simulation(servers, 40).submit(2800).run()
    assert len(simulation.done) == 2800
    assert simulation.now < 1.25 * 2800 / 140


def test_a_call_that_fails_is_sent_elsewhere_at_once_and_none_is_lost():
    simulation = Simulation({"a": steady(0.1, DOWN), "b": steady(0.1)}, 8).submit(400).run()
    assert len(simulation.done) == 400
    assert not simulation.failed
    # All that it costs: the attempts until the gate closes, and a probe now and then.
    assert simulation.sent_to("a") < 60
    assert simulation.now < 1.3 * 400 * 0.1 / 8


def test_an_endpoint_that_comes_back_is_used_again():
    simulation = Simulation({"a": lambda now: (0.1, DOWN if 2 <= now < 6 else OK), "b": steady(0.1)}, 10)
    simulation.submit(1200).run()
    assert len(simulation.done) == 1200
    assert simulation.sent_to("a", 2, 6) < 60
    assert simulation.sent_to("a", 7.5, 9) > 40


def test_when_all_are_down_calls_wait_as_for_a_single_one():
    down = lambda now: (0.1, DOWN if now < 5 else OK)  # noqa: E731
    simulation = Simulation({"a": down, "b": down}, 4, policy=RetryPolicy(max_retries=20)).submit(40).run()
    assert len(simulation.done) == 40
    assert simulation.sent_to("a", 2, 5) + simulation.sent_to("b", 2, 5) < 20


def test_a_refused_key_costs_as_many_attempts_as_were_under_way():
    simulation = Simulation({"a": steady(0.1, WRONG_KEY), "b": steady(0.1)}, 8).submit(400).run()
    assert len(simulation.done) == 400
    assert simulation.sent_to("a") <= 8


def test_all_keys_refused_end_the_call_with_all_reasons():
    simulation = Simulation({"a": steady(0.1, WRONG_KEY), "b": steady(0.1, WRONG_KEY)}, 1).submit(1).run()
    assert [decision.scope for decision in simulation.failed] == ["run"]
    assert str(simulation.failed[0].error).count("wrong key") == 2


@pytest.mark.slow
def test_an_endpoint_that_hangs_gathers_hardly_any_calls():
    simulation = Simulation({"a": lambda now: (0.1 if now < 2 else 600, OK), "b": steady(0.1)}, 16).submit(3000).run()
    hung = simulation.sent_to("a", 2, 30)
    assert hung <= 9  # half of the workers have a call there at that moment; then next to none
    assert sorted(at for at, _ in simulation.done)[-hung - 1] < 36


def test_a_call_that_only_one_has_room_for_is_not_lost_when_that_one_refuses_it():
    plans = [EndpointSpec("a"), EndpointSpec("b", Limits(tokens_per_minute=10))]
    simulation = Simulation({"a": steady(0.1, WRONG_KEY), "b": steady(0.1)}, 1, plans).submit(1).run()
    assert [name for _, name in simulation.sends] == ["a", "b"]  # where it is told that it is too large


def test_a_rate_limit_of_one_does_not_hold_up_what_waits_behind_it():
    first = iter([(0.01, busy(30.0))])
    simulation = Simulation({"a": lambda now: next(first, (0.1, OK)), "b": steady(0.1)}, 4).submit(100).run()
    assert simulation.now < 5
