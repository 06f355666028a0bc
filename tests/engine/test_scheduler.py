"""Which call runs next: no threads, no time but the one the test passes."""

from __future__ import annotations

import random

import pytest
from simulation import new_call

from chatpool._engine.call import DONE, PARKED, QUEUED, RUNNING
from chatpool._engine.scheduler import NextStep, Scheduler
from chatpool._values import Verdict
from chatpool.testing import FakeClock


def test_calls_run_in_the_order_they_came():
    scheduler, calls = Scheduler(1), [new_call(item="a"), new_call(item="b")]
    scheduler.submit(calls)
    first = scheduler.next_step(0.0).call
    scheduler.end(first)
    assert [first, scheduler.next_step(0.0).call] == calls


@pytest.mark.parametrize(("calls", "max_workers", "started"), [(1, 4, 1), (3, 4, 3), (9, 4, 4), (0, 4, 0)])
def test_workers_are_started_for_calls_up_to_the_cap(calls, max_workers, started):
    assert Scheduler(max_workers).submit([new_call() for _ in range(calls)]) == started


def test_a_worker_that_finds_nothing_ends_and_another_may_start():
    scheduler = Scheduler(1)
    assert scheduler.submit([new_call()]) == 1
    scheduler.end(scheduler.next_step(0.0).call)
    assert scheduler.next_step(0.0) == NextStep()
    assert scheduler.submit([new_call()]) == 1


def test_a_parked_call_holds_no_worker_and_runs_before_fresh_ones_when_due():
    scheduler, parked, fresh, later = (
        Scheduler(1),
        new_call(item="parked"),
        new_call(item="fresh"),
        new_call(item="later"),
    )
    scheduler.submit([parked, fresh, later])
    assert scheduler.next_step(0.0).call is parked
    scheduler.park(parked, due=5.0)
    assert scheduler.next_step(1.0).call is fresh
    scheduler.end(fresh)
    assert scheduler.next_step(5.0).call is parked
    scheduler.end(parked)
    assert scheduler.next_step(5.0).call is later


def test_one_worker_waits_for_parked_calls_and_the_others_end():
    scheduler = Scheduler(2)
    scheduler.submit([new_call(), new_call()])
    for call in [scheduler.next_step(0.0).call, scheduler.next_step(0.0).call]:
        scheduler.park(call, due=9.0)
    assert scheduler.next_step(1.0) == NextStep(wait=True)
    assert scheduler.next_step(1.0) == NextStep()


def test_fresh_calls_go_to_the_waiting_worker_before_another_is_started():
    scheduler = Scheduler(2)
    scheduler.submit([new_call()])
    scheduler.park(scheduler.next_step(0.0).call, due=9.0)
    assert scheduler.next_step(0.0).wait
    assert scheduler.submit([new_call(item="fresh")]) == 0
    assert scheduler.submit([new_call(item="second"), new_call(item="third")]) == 1


def test_a_worker_that_leaves_the_wait_for_a_call_has_itself_replaced():
    scheduler = Scheduler(2)
    scheduler.submit([new_call(item="parked")])
    scheduler.park(scheduler.next_step(0.0).call, due=9.0)
    assert scheduler.next_step(0.0).wait
    scheduler.submit([new_call(item="fresh")])
    scheduler.wait_for_work(FakeClock())  # returns at once: there is a call to look at
    step = scheduler.next_step(0.0)
    assert step.call.item == "fresh"
    assert step.more_workers == 1


def test_a_call_has_exactly_one_end():
    scheduler, call = Scheduler(1), new_call()
    scheduler.submit([call])
    scheduler.next_step(0.0)
    assert scheduler.cancel(call)
    assert not scheduler.end(call)
    assert scheduler.succeed(call, Verdict("success"), 0.0) == (False, 0)
    scheduler.park(call, due=1.0)
    assert scheduler.counts() == (0, 0, 0)


def test_a_call_cancelled_in_a_queue_is_not_run():
    scheduler, first, second = Scheduler(1), new_call(item="first"), new_call(item="second")
    scheduler.submit([first, second])
    scheduler.cancel(first)
    assert scheduler.next_step(0.0).call is second


def test_giving_up_ends_queued_parked_and_running_calls_of_one_kind_only():
    scheduler = Scheduler(3)
    mine, theirs = [new_call(item=f"mine{i}") for i in range(3)], new_call(item="theirs")
    scheduler.submit([*mine, theirs])
    scheduler.park(scheduler.next_step(0.0).call, due=9.0)
    scheduler.next_step(0.0)
    assert set(scheduler.give_up(lambda call: call in mine)) == set(mine)
    assert scheduler.counts() == (1, 0, 0)
    assert scheduler.next_step(0.0).call is theirs


def test_giving_up_can_leave_running_calls_alone():
    scheduler, running, queued = Scheduler(1), new_call(item="running"), new_call(item="queued")
    scheduler.submit([running, queued])
    scheduler.next_step(0.0)
    assert scheduler.give_up(lambda call: True, in_flight=False) == [queued]
    assert running.state == RUNNING


def test_a_running_call_has_a_cancel_token():
    scheduler = Scheduler(1)
    scheduler.submit([new_call()])
    assert not scheduler.next_step(0.0).call.cancel_token.cancelled


def test_a_call_whose_model_was_forgotten_meanwhile_is_sent_to_the_one_that_others_are_sent_to(monkeypatch):
    monkeypatch.setattr("chatpool._engine.upstreams._MAX_IDLE_UPSTREAMS", 1)
    scheduler, asked_again = Scheduler(9), new_call("a")
    scheduler.submit([asked_again])
    assert scheduler.next_step(0.0).call is asked_again
    scheduler.accepted(asked_again, Verdict("success"), 1.0)  # its answer is looked at now
    scheduler.submit([new_call(name) for name in "bcd"])
    assert "a" not in {endpoint for endpoint, _ in scheduler.upstream_stats(1.0)}
    scheduler.resend(asked_again, 2.0)
    scheduler.returned(asked_again, Verdict("unavailable"), 3.0)
    assert scheduler.upstream_stats(3.0)[asked_again.upstream_key].failure_streak == 1


def test_the_failure_streak_is_kept_per_line():
    scheduler, first, second = Scheduler(2), new_call("a"), new_call("b")
    scheduler.submit([first, second])
    scheduler.next_step(0.0)
    scheduler.next_step(0.0)
    assert scheduler.returned(first, Verdict("unavailable"), 1.0).streak == 1
    scheduler.resend(first, 1.0)
    assert scheduler.returned(first, Verdict("unavailable"), 2.0).streak == 2
    assert scheduler.returned(second, Verdict("unavailable"), 2.0).streak == 1


@pytest.mark.parametrize("seed", range(20))
def test_random_histories_keep_every_invariant(seed):
    """Never more running than workers, every call exactly one end, no call in two places, counts that add up."""
    dice, max_workers, now = random.Random(seed), 4, 0.0
    scheduler, calls, workers, waiting = Scheduler(max_workers), [], 0, 0
    running, ended = [], set()
    for _ in range(600):
        now += dice.random()
        action = dice.choice(["submit", "work", "work", "work", "succeed", "park", "cancel", "give up"])
        if action == "submit":
            fresh = [new_call() for _ in range(dice.randrange(4))]
            calls += fresh
            workers += scheduler.submit(fresh)
            # a real waiting worker is woken by this and asks again
            if waiting and fresh:
                scheduler.wait_for_work(FakeClock(now))
                workers, waiting = workers + 1, 0
        elif action == "work" and workers:
            step = scheduler.next_step(now)
            workers += step.more_workers - 1
            if step.call is not None:
                running.append(step.call)
            elif step.wait:
                waiting += 1
        elif action in ("succeed", "park") and running:
            call = running.pop(dice.randrange(len(running)))
            scheduler.returned(call, Verdict("retry"), now)
            if action == "park":
                scheduler.park(call, now + dice.random() * 5)
            elif scheduler.succeed(call, Verdict("success"), now)[0]:
                assert call not in ended
                ended.add(call)
            workers += 1
        elif action == "cancel" and calls:
            call = dice.choice(calls)
            if scheduler.cancel(call):
                assert call not in ended
                ended.add(call)
        elif action == "give up" and dice.random() < 0.1:
            given_up = scheduler.give_up(lambda call: True)
            assert not ended.intersection(given_up)
            ended.update(given_up)
        assert len(running) + workers + waiting <= max_workers
        assert waiting <= 1
        states = [call.state for call in calls]
        assert scheduler.counts() == tuple(states.count(state) for state in (QUEUED, PARKED, RUNNING))
        assert {call for call in calls if call.state == DONE} == ended
    left = scheduler.give_up(lambda call: True)
    assert ended.union(left) == set(calls)
