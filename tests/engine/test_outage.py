"""A server that goes down and comes back, simulated."""

from __future__ import annotations

import random
import statistics

import pytest
import tenacity

from chatpool._values import Verdict
from chatpool.config import RetryPolicy
from chatpool.errors import APIConnectionError, APITimeoutError, InternalServerError, RateLimitError

OK = Verdict("success", status=200)
DOWN = Verdict("unavailable", error=InternalServerError("down", status_code=503), status=503)
REFUSED_CONNECTION = Verdict("unavailable", error=APIConnectionError("refused"))
LATENCY = 0.05


def outages(*intervals, failure=(LATENCY, DOWN)):
    """A server that fails like ``failure`` within the intervals and answers otherwise."""
    return lambda now: failure if any(start <= now < end for start, end in intervals) else (LATENCY, OK)


FAILURES = {
    "503": (LATENCY, DOWN),
    "503 with retry-after": (LATENCY, DOWN._replace(retry_after=2.0)),
    "connection refused": (0.001, REFUSED_CONNECTION),
    "hanging": (1.0, Verdict("timeout", error=APITimeoutError("hung"))),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("max_workers", [16, pytest.param(100, marks=pytest.mark.slow)])
def test_during_an_outage_only_probes_are_sent_and_nothing_is_lost(simulate, failure, max_workers):
    healthy = max_workers / LATENCY
    simulation = simulate(outages((2, 22), failure=FAILURES[failure]), max_workers)
    count = int(healthy * 8)
    simulation.submit(count)
    simulation.run()
    recognised = 2 + (2.5 if failure == "hanging" else 1.5)
    allowed = max(1.0, 0.02 * healthy) * (22 - recognised) + max_workers
    assert simulation.sent_between(recognised, 22) <= allowed
    assert len(simulation.succeeded) == count
    assert simulation.failed == []
    # full speed again: the second that starts 3 s after the recovery is as busy as a healthy one
    late = 25 + (1 if failure == "hanging" else 0)
    if simulation.clock.time > late + 1:
        assert simulation.sent_between(late, late + 1) >= 0.9 * healthy


@pytest.mark.slow
def test_a_flapping_server_loses_nothing(simulate):
    flaps = [(second, second + 0.7) for second in range(2, 30, 2)]
    simulation = simulate(outages(*flaps), 32)
    simulation.submit(10_000)
    simulation.run()
    assert len(simulation.succeeded) == 10_000


def test_fifteen_minutes_down_end_the_run_after_ten_and_hold_the_rest(simulate):
    simulation = simulate(outages((2, 902)), 16)
    simulation.submit(10_000)
    simulation.run()
    assert simulation.fatal[0] == "model"
    assert "no call has succeeded for 60" in str(simulation.fatal[1])
    assert 602 <= simulation.clock.time <= 605
    assert simulation.sent_between(4, 700) <= 610
    queued, parked, running = simulation.engine.counts()
    assert len(simulation.succeeded) + queued + parked + running + 1 == 10_000
    assert len(simulation.failed) == 1


def test_a_server_that_was_never_up_ends_the_run_after_half_a_minute(simulate):
    simulation = simulate(outages((0, 1e9), failure=(0.001, REFUSED_CONNECTION)), 16)
    simulation.submit(1000)
    simulation.run()
    assert simulation.fatal[0] == "model"
    assert 30 <= simulation.clock.time <= 32


def test_nothing_but_refusals_end_the_run_after_max_outage(simulate):
    refused = Verdict("throttled", error=RateLimitError("no", status_code=429), status=429, retry_after=5.0)
    simulation = simulate(lambda now: (LATENCY, refused), 8, policy=RetryPolicy(max_outage=100))
    simulation.submit(50)
    simulation.run()
    assert simulation.fatal[0] == "model"
    assert 100 <= simulation.clock.time <= 107


def test_the_time_a_run_is_held_does_not_count_against_its_calls(simulate):
    simulation = simulate(outages((2, 60)), 8, total=20)
    simulation.submit(1000)
    simulation.run()
    assert len(simulation.succeeded) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_random_failures_cost_little_time(simulate, seed):
    """20 % random 503s, C=100, 50 ms: at most 1.8 times the time of the same run without them."""
    dice = random.Random(seed)

    def unlucky(now):
        return LATENCY * dice.uniform(0.9, 1.1), DOWN if dice.random() < 0.2 else OK

    # With the usual eight retries, one of 10,000 calls is lost to nine failures in a row in one run of 200.
    simulation = simulate(unlucky, 100, policy=RetryPolicy(max_retries=20))
    simulation.submit(10_000)
    simulation.run()
    assert len(simulation.succeeded) == 10_000
    assert simulation.clock.time <= 1.8 * 10_000 / 100 * LATENCY


def test_every_fifth_call_failing_once_costs_no_more_than_its_wait(simulate):
    """C=10, 400 calls of 50 ms, every fifth fails once and waits a second; sleeping workers need 4.5 x the ideal."""
    seen = iter(range(10**9))

    def every_fifth(now):
        return LATENCY, DOWN if now < 2 and next(seen) % 5 == 4 else OK

    simulation = simulate(every_fifth, 10, policy=RetryPolicy(wait=tenacity.wait_fixed(1)))
    simulation.submit(400)
    simulation.run()
    ideal = 480 / 10 * LATENCY
    assert len(simulation.succeeded) == 400
    assert simulation.clock.time <= 1.5 * ideal
    assert statistics.mean(simulation.succeeded) < ideal
