"""Somebody always looks after the calls that a closed gate holds: no real time, no worker but those of the test."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from simulation import new_call

from chatpool._engine.scheduler import NextStep, Scheduler
from chatpool._values import Verdict
from chatpool.testing import FakeClock

UPSTREAM = ("s", "m")
DOWN, UP, REFUSED = Verdict("unavailable"), Verdict("success"), Verdict("fail")
FIRST_PROBE = 0.25  # seconds after the gate has closed


def close_gate(scheduler):
    """Let every attempt fail until only probes are sent; returns when that was."""
    now = 0.0
    while not scheduler.health(new_call()).circuit.is_open:
        now += 0.01
        call = scheduler.next_step(now).call
        if call is not None:
            scheduler.returned(call, DOWN, now)
            scheduler.park(call, due=1000.0)
    return now


@pytest.fixture
def closed():
    """A scheduler for two workers that holds many calls; its server is down, and the first probe is out.

    ``.probe`` is its call, ``.now`` the time.
    """
    scheduler = Scheduler(2)
    scheduler.submit([new_call() for _ in range(100)])
    for _ in range(2):
        scheduler.worker_started()
    now = close_gate(scheduler) + FIRST_PROBE
    return SimpleNamespace(scheduler=scheduler, probe=scheduler.next_step(now).call, now=now)


@pytest.fixture
def waiting():
    """A function that lets a thread wait for work as a worker does, and returns it once it waits."""
    clock, threads = FakeClock(), []

    def start(scheduler, now):
        clock.advance(now)
        threads.append(threading.Thread(target=scheduler.wait_for_work, args=(clock,), daemon=True))
        threads[-1].start()
        clock.until_waiting()
        return threads[-1]

    yield start
    clock.advance(1e9)
    for thread in threads:
        thread.join(60)


def test_a_worker_that_waits_long_is_woken_when_the_next_probe_comes_sooner(closed, waiting):
    scheduler = closed.scheduler
    assert scheduler.next_step(closed.now).wait  # another worker: for the parked calls, while the probe is out
    other = waiting(scheduler, closed.now)
    scheduler.returned(closed.probe, DOWN, closed.now + 0.1)
    scheduler.park(closed.probe, due=1000.0)
    assert scheduler.next_step(closed.now + 0.1) == NextStep()  # this one ends, since there is one that waits
    other.join(60)
    assert not other.is_alive()


def test_a_gate_that_opens_has_a_worker_started_for_what_it_held(closed):
    closed.scheduler.worker_ended()  # the other one, which found nothing to send while the probe was out
    assert closed.scheduler.succeed(closed.probe, UP, closed.now + 0.1) == (True, 1)


def test_a_probe_that_fails_for_good_has_a_worker_started_for_the_next(closed):
    closed.scheduler.worker_ended()
    closed.scheduler.returned(closed.probe, DOWN, closed.now + 0.1)
    assert closed.scheduler.end(closed.probe)
    assert closed.scheduler.extra_workers(closed.now + 0.1) == 1


def test_a_probe_that_tells_nothing_is_followed_by_another_at_once(closed):
    closed.scheduler.returned(closed.probe, REFUSED, closed.now + 0.1)
    closed.scheduler.end(closed.probe)
    assert closed.scheduler.next_step(closed.now + 0.1).call is not None


def test_a_call_that_never_came_into_a_queue_is_counted_nowhere_when_it_is_cancelled():
    scheduler, call = Scheduler(1), new_call()
    assert scheduler.cancel(call)
    assert scheduler.counts() == (0, 0, 0)
    assert scheduler.idle()
    assert scheduler.submit([call]) == 0  # nor does it come into one afterwards
    assert scheduler.counts() == (0, 0, 0)
