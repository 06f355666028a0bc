"""Why calls wait, as a person is told who looks at the progress of a run."""

from __future__ import annotations

import pytest
from simulation import new_call

from chatpool import APIError, AuthenticationError, Budget, RateLimitError
from chatpool._engine.endpoints import EndpointSpec
from chatpool._engine.scheduler import Scheduler
from chatpool._policy.budget import BudgetTracker
from chatpool._values import Hold, Verdict, Waiting, common_reason
from chatpool.config import Limits
from chatpool.types import ChatRequest

DOWN = Verdict("unavailable", error=APIError("down"))
TWO = [EndpointSpec("a"), EndpointSpec("b")]


class Sink:
    def __init__(self, run_id):
        self.run_id = run_id

    def refusal(self, call):
        return None


def calls_of(run_id, count, model="m", endpoint="a"):
    """Calls of one run to a model."""
    request = ChatRequest({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20})
    return [new_call(endpoint, request=request, sink=Sink(run_id)) for _ in range(count)]


def send(scheduler, count, now=0.0):
    return [scheduler.next_step(now).call for _ in range(count)]


def end_all(scheduler, calls, verdict, now):
    for call in calls:
        scheduler.returned(call, verdict, now)
        scheduler.end(call)


def bring_down(scheduler):
    """Let one call after the other fail, until a probe would have to wait; it is the first second then."""
    for step in range(60):
        call = scheduler.next_step(step / 100).call
        if call is None:
            return
        end_all(scheduler, [call], DOWN, step / 100)


def test_calls_that_are_sent_wait_for_nothing():
    scheduler = Scheduler(2)
    scheduler.submit(calls_of(1, 5))
    send(scheduler, 2)
    assert scheduler.waiting(1, 0.0) == Waiting(None, 2)
    assert scheduler.waiting(2, 0.0) == Waiting(None, 0)
    assert scheduler.waiting(None, 0.0) == Waiting(None, 2)


def test_a_limit_of_the_users_own():
    scheduler = Scheduler(9, [EndpointSpec("a", Limits(requests_per_minute=300))])
    scheduler.submit(calls_of(1, 50))
    send(scheduler, 5)
    assert scheduler.waiting(1, 0.0).reason == "rate 5/s, limit configured"
    assert scheduler.waiting(1, 30.0).reason is None


def test_a_pause_that_the_server_has_asked_for_counts_down_and_ends():
    scheduler = Scheduler(9)
    scheduler.submit(calls_of(1, 50))
    (call,) = send(scheduler, 1)
    end_all(scheduler, [call], Verdict("throttled", error=RateLimitError("no"), retry_after=5.0), 1.0)
    assert scheduler.waiting(1, 1.0).reason == "server asks to wait 5 s"
    assert scheduler.waiting(1, 4.5).reason == "server asks to wait 2 s"
    assert scheduler.waiting(1, 6.1).reason is None


def test_a_server_that_refuses_until_a_known_time():
    scheduler = Scheduler(9)
    scheduler.submit(calls_of(1, 1))
    scheduler.refuse(("a", "m"), 3000.0, RateLimitError("come back tomorrow \x1b[31m"))
    assert scheduler.waiting(1, 0.0).reason == "server asks to wait 50 min"


def test_a_server_that_is_down_and_comes_back():
    scheduler = Scheduler(60)
    scheduler.submit(calls_of(1, 100))
    bring_down(scheduler)
    assert scheduler.waiting(1, 1.0).reason == "server down, probing"
    assert scheduler.upstream_stats(1.0)["a", "m"].waits_for == "server down, probing"
    (probe,) = send(scheduler, 1, 2.0)
    scheduler.succeed(probe, Verdict("success", value="x"), 2.1)
    assert scheduler.waiting(1, 3.0).reason is None


def test_of_other_runs_and_models_nothing_is_said():
    scheduler = Scheduler(60)
    scheduler.submit(calls_of(1, 100))
    bring_down(scheduler)
    scheduler.submit(calls_of(2, 1, "other"))
    assert scheduler.waiting(2, 1.0).reason is None
    assert scheduler.waiting(None, 1.0).reason == "server down, probing (1 of 2)"


def test_of_a_server_for_which_no_call_waits_nothing_is_said():
    scheduler = Scheduler(60)
    scheduler.submit(calls_of(1, 100))
    bring_down(scheduler)
    assert scheduler.waiting(None, 1.0).reason is not None
    scheduler.give_up(lambda call: True)
    assert scheduler.waiting(None, 1.0).reason is None


def test_a_wait_of_each_call_for_its_own_retry():
    scheduler = Scheduler(2)
    scheduler.submit(calls_of(1, 2))
    first, second = send(scheduler, 2)
    scheduler.returned(first, Verdict("retry", error=APIError("odd")), 0.0)
    scheduler.park(first, due=8.0)
    assert scheduler.waiting(1, 0.0) == Waiting(None, 1)  # the other one is under way
    scheduler.returned(second, Verdict("retry", error=APIError("odd")), 0.0)
    scheduler.park(second, due=9.0)
    assert scheduler.waiting(1, 0.5) == Waiting("next retry in 8 s", 0)
    assert scheduler.waiting(1, 8.5).reason is None  # it is due


def test_a_parked_call_waits_for_its_server_first():
    scheduler = Scheduler(2)
    scheduler.submit(calls_of(1, 1))
    (call,) = send(scheduler, 1)
    scheduler.returned(call, Verdict("throttled", error=RateLimitError("no"), retry_after=5.0), 0.0)
    scheduler.park(call, due=5.0)
    assert scheduler.waiting(1, 0.0).reason == "server asks to wait 5 s"
    assert scheduler.waiting(2, 0.0).reason is None  # another run


def test_one_endpoint_of_two():
    scheduler = Scheduler(9, TWO)
    scheduler.submit(calls_of(1, 9))
    scheduler.refuse(("a", "m"), 60.0, RateLimitError("later"))
    assert scheduler.waiting(1, 0.0).reason == "server asks to wait 1 min (1 of 2)"
    scheduler.refuse(("b", "m"), 30.0, RateLimitError("later"))
    assert scheduler.waiting(1, 0.0).reason == "server asks to wait 30 s"


def test_an_endpoint_that_refuses_the_key():
    scheduler = Scheduler(9, TWO)
    scheduler.submit(calls_of(1, 9))
    (call,) = send(scheduler, 1)
    scheduler.eject(call, "run", AuthenticationError("wrong key \x1b[31m"), 0.0, 1.0)
    assert scheduler.waiting(1, 1.0).reason == "server refuses all calls, checking again (1 of 2)"


def test_a_budget_that_calls_in_flight_have_reserved():
    scheduler = Scheduler(100, budget_tracker=BudgetTracker(Budget(tokens=100)))
    scheduler.submit(calls_of(1, 100))
    for step in range(100):
        scheduler.next_step(float(step))
    assert scheduler.waiting(1, 100.0).reason == "budget is nearly used up, waiting for answers"


def test_asking_changes_nothing():
    def steps(asks):
        scheduler = Scheduler(9, [EndpointSpec("a", Limits(requests_per_minute=300))])
        scheduler.submit(calls_of(1, 50))
        sent = []
        for tick in range(200):
            now = tick / 20
            if asks:
                scheduler.waiting(1, now)
                scheduler.upstream_stats(now)
            call = scheduler.next_step(now).call
            if call is not None:
                sent.append(now)
                scheduler.succeed(call, Verdict("success", value="x"), now)
        return sent

    assert steps(asks=True) == steps(asks=False)


@pytest.mark.parametrize(
    ("holds", "reason"),
    [
        ([], None),
        ([None, None], None),
        ([Hold("late", 9.0), Hold("soon", 2.0), Hold("unknown")], "soon"),
        ([None, Hold("late", 9.0), Hold("soon", 2.0)], "late (2 of 3)"),
    ],
)
def test_the_reason_of_several(holds, reason):
    assert common_reason(holds) == reason
