"""Which of several callers' calls is sent next: no threads, no sockets, no time but the one the test passes."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from simulation import new_call, options

from chatpool._engine.completion import CallFuture
from chatpool._engine.endpoints import EndpointSpec
from chatpool._engine.scheduler import Scheduler
from chatpool._values import Verdict
from chatpool.config import Limits
from chatpool.types import ChatRequest

OK = Verdict("success", value="x")


class Caller:
    """A run, or (``run_id`` None) callers of single calls."""

    def __init__(self, office, run_id, priority=0, model="m"):
        self.office = office
        self.sink = CallFuture()
        self.sink.run_id = run_id
        self.options = options(max_workers=office.workers, priority=priority, is_single=run_id is None)
        self.request = ChatRequest({"model": model, "messages": []})

    def submit(self, count=1):
        calls = [
            new_call(request=self.request, call_options=self.options, sink=self.sink, now=self.office.now, item=self)
            for _ in range(count)
        ]
        self.office.scheduler.submit(calls)
        return calls


class Office:
    """A scheduler whose workers' calls take as long as the test wants."""

    def __init__(self, workers=1, specs=()):
        self.workers, self.now = workers, 0.0
        self.scheduler = Scheduler(workers, specs)

    def caller(self, run_id=None, **settings):
        return Caller(self, run_id, **settings)

    def send(self):
        """The call that a free worker sends now, None for none."""
        return self.scheduler.next_step(self.now).call

    def serve(self, seconds, count=1):
        """Send so many calls, each of which takes so long; returns whose they were."""
        whose = []
        for _ in range(count):
            call = self.send()
            assert call is not None
            self.now += seconds
            self.scheduler.succeed(call, OK, self.now)
            whose.append(call.item)
        return whose


def test_a_single_call_goes_before_the_rows_of_a_run():
    office = Office()
    run, single = office.caller(run_id=1), office.caller()
    run.submit(200)
    office.serve(9.0, 3)
    single.submit()
    assert office.serve(9.0, 2) == [single, run]


def test_single_calls_go_in_the_order_they_came():
    office = Office()
    office.caller(run_id=1).submit(5)
    first, second = office.caller(), office.caller()
    first.submit()
    second.submit()
    assert office.serve(0.1, 2) == [first, second]


def test_runs_take_turns_whenever_they_began():
    office = Office()
    long, short = office.caller(run_id=1), office.caller(run_id=2)
    long.submit(100)
    office.serve(0.1, 10)
    short.submit(4)
    assert Counter(office.serve(0.1, 8)) == {long: 4, short: 4}
    assert set(office.serve(0.1, 5)) == {long}


def test_retries_of_a_run_go_before_its_other_rows_and_behind_single_calls():
    office = Office()
    run, single = office.caller(run_id=1), office.caller()
    run.submit(3)
    call = office.send()
    office.scheduler.returned(call, Verdict("fail"), office.now)
    office.scheduler.park(call, office.now + 1)
    office.now += 2
    single.submit()
    assert office.send().item is single
    assert office.send() is call


@pytest.mark.parametrize(("urgent", "usual"), [(1, 0), (0, -1), (10**30, 10**30 - 1)])
def test_a_higher_priority_goes_first_over_runs_single_calls_and_models(urgent, usual):
    office = Office()
    others = [
        office.caller(run_id=1, priority=usual),
        office.caller(priority=usual),
        office.caller(run_id=2, priority=usual, model="n"),
        office.caller(priority=usual, model="n"),
    ]
    for other in others:
        other.submit(3)
    first = office.caller(run_id=3, priority=urgent, model="o")
    first.submit(3)
    assert office.serve(0.01, 3) == [first] * 3
    assert {caller.options.is_single for caller in office.serve(0.01, 6)} == {True}


def test_models_still_take_turns():
    office = Office()
    callers = [office.caller(run_id=1, model=model) for model in "abc"]
    for caller in callers:
        caller.submit(4)
    assert Counter(office.serve(0.1, 6)) == dict.fromkeys(callers, 2)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 9.0])
def test_nobody_is_passed_over_for_ever(seconds):
    office = Office()
    background = office.caller(run_id=1, priority=-2)
    run, single = office.caller(run_id=2), office.caller()
    background.submit(10)
    run.submit(1_000)
    served, waited = Counter(), 0.0
    while served[background] < 2:
        single.submit()
        before = office.now
        served.update(office.serve(seconds))
        waited += office.now - before
        assert waited < 60 + 10 * seconds
    assert served[run] >= served[background]
    assert served[single] >= served[run]


def test_a_call_that_was_passed_over_does_not_go_before_one_of_its_own_level():
    office = Office()
    first, second = office.caller(run_id=1), office.caller(run_id=2)
    single = office.caller()
    first.submit(5)
    second.submit(5)
    single.submit(40)
    whose = office.serve(1.0, 40)
    assert whose.count(first) - whose.count(second) in (0, 1)
    assert whose.count(first) >= 4


def test_within_a_limit_of_tokens_a_small_row_does_not_forestall_a_large_call():
    office = Office(workers=8, specs=[EndpointSpec("s", Limits(tokens_per_minute=60_000, burst=1))])
    run, single = office.caller(run_id=1), office.caller()
    run.submit(100)
    request = ChatRequest({"model": "m", "messages": [], "max_tokens": 30_000})
    large = new_call(request=request, call_options=single.options, sink=single.sink, item=single)
    sent = []
    while office.send() is not None:
        pass  # what is left of the allowance goes to rows
    office.scheduler.submit([large])
    while large not in sent:
        office.now += 0.1
        call = office.send()
        if call is not None:
            sent.append(call)
        assert office.now < 60
    assert sent == [large]


def test_a_paused_model_holds_up_no_other_of_whatever_priority():
    office = Office()
    busy, other = office.caller(priority=5), office.caller(run_id=1, model="n")
    busy.submit(2)
    other.submit(2)
    call = office.send()
    office.scheduler.returned(call, Verdict("throttled", retry_after=30.0), office.now)
    office.scheduler.park(call, office.now + 30)
    assert office.send().item is other


@pytest.mark.parametrize("seed", range(20))
def test_random_histories_send_every_call_once_and_leave_nothing_behind(seed):
    choose = random.Random(seed)
    endpoints = [EndpointSpec(name) for name in "st"[: choose.choice((1, 2))]]
    office = Office(workers=4, specs=endpoints)
    callers = [
        office.caller(choose.choice((None, 1, 2, 3)), priority=choose.choice((-1, 0, 0, 2)), model=choose.choice("mn"))
        for _ in range(8)
    ]
    submitted, sent, running = [], [], []
    for _ in range(300):
        office.now += choose.random()
        action = choose.random()
        if action < 0.3:
            submitted += choose.choice(callers).submit(choose.randrange(1, 4))
        elif action < 0.4 and submitted:
            office.scheduler.cancel(choose.choice(submitted))
        elif action < 0.5:
            office.scheduler.resync()
        elif action < 0.75 and len(running) < 4:
            call = office.send()
            if call is not None:
                running.append(call)
                sent.append(call)
        elif running:
            call = running.pop(choose.randrange(len(running)))
            if choose.random() < 0.7:
                office.scheduler.succeed(call, OK, office.now)
            elif call.state != "done":
                office.scheduler.returned(call, Verdict("fail"), office.now)
                office.scheduler.park(call, office.now + choose.random())
    while running:
        office.scheduler.succeed(running.pop(), OK, office.now)
    for _ in range(len(submitted) + 10):
        office.now += 1.0
        call = office.send()
        if call is not None:
            sent.append(call)
            office.scheduler.succeed(call, OK, office.now)
    assert all(call.state == "done" for call in submitted)
    assert office.scheduler.counts() == (0, 0, 0)
    assert office.send() is None
    upstreams = office.scheduler._upstreams
    assert upstreams._levels == {}
    assert all(upstream.queue._levels == {} for upstream in upstreams)
