"""The gate before a server that is down."""

from __future__ import annotations

import math
import random

import pytest

from chatpool._policy.circuit_breaker import CircuitBreaker


def attempt(gate, kind, now=0.0, sent_at=None):
    gate.sent()
    gate.returned(kind, now if sent_at is None else sent_at, now)


def closed_gate(now=0.0):
    gate = CircuitBreaker()
    while not gate.closed:
        attempt(gate, "unavailable", now)
    return gate


def test_it_closes_after_a_dozen_failures_of_a_lone_call():
    gate = CircuitBreaker()
    for _ in range(11):
        attempt(gate, "unavailable")
    assert not gate.closed
    attempt(gate, "timeout")
    assert gate.closed


def test_the_more_calls_in_flight_the_more_failures_it_takes():
    gate = CircuitBreaker()
    for _ in range(100):
        gate.sent()
    for _ in range(100):
        gate.returned("unavailable", 0.0, 1.0)
    assert not gate.closed
    for _ in range(100):
        attempt(gate, "unavailable", 2.0)
    assert gate.closed


@pytest.mark.parametrize("kind", ["fail", "throttled", "retry"])
def test_answers_of_a_server_that_works_do_not_close_it(kind):
    gate = CircuitBreaker()
    for _ in range(1000):
        attempt(gate, kind)
    assert not gate.closed


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_random_failures_do_not_close_it(share):
    dice = random.Random(7)
    gate, closings = CircuitBreaker(), 0
    in_flight = []
    for step in range(20_000):
        if len(in_flight) < 64:
            gate.sent()
            in_flight.append(float(step))
            continue
        sent_at = in_flight.pop(dice.randrange(64))
        was_closed = gate.closed
        gate.returned("unavailable" if dice.random() < share else "success", sent_at, float(step))
        closings += gate.closed and not was_closed
    assert closings == 0


def test_who_is_told_that_the_server_is_not_down_does_not_close_it():
    gate = CircuitBreaker()
    for _ in range(1000):
        gate.sent()
        gate.returned("unavailable", 0.0, 1.0, down=False)
    assert not gate.closed


def test_who_is_told_that_it_is_closes_it_at_the_next_failure():
    gate = CircuitBreaker()
    gate.sent()
    gate.returned("throttled", 0.0, 1.0, down=True)
    assert not gate.closed
    gate.sent()
    gate.returned("unavailable", 1.0, 2.0, down=True)
    assert gate.closed
    assert gate.down_since == 1.0
    assert gate.wait(2.0) == 0.25


def test_once_it_is_closed_only_a_success_opens_it():
    gate = closed_gate()
    gate.sent()
    gate.returned("unavailable", 1.0, 2.0, down=False)
    assert gate.closed
    gate.sent()
    gate.returned("success", 3.0, 4.0, down=True)
    assert not gate.closed


def test_probes_go_out_one_at_a_time_with_growing_pauses_up_to_a_second():
    gate = closed_gate()
    now, pauses = 0.0, []
    for _ in range(5):
        pauses.append(gate.wait(now))
        now += pauses[-1]
        gate.sent()
        assert gate.wait(now) == math.inf
        gate.returned("unavailable", now, now)
    assert pauses == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_a_probe_that_succeeds_opens_it():
    gate = closed_gate()
    attempt(gate, "success", now=5.0)
    assert not gate.closed
    assert gate.wait(5.0) == 0.0


def test_a_success_from_before_the_failures_does_not_open_it():
    gate = CircuitBreaker()
    gate.sent()
    for _ in range(20):
        attempt(gate, "unavailable", now=1.0)
    gate.returned("success", 0.5, 9.0)
    assert gate.closed


def test_a_late_success_sent_after_the_failures_began_opens_it():
    gate = CircuitBreaker()
    attempt(gate, "unavailable", now=1.0)
    gate.sent()
    for _ in range(20):
        attempt(gate, "unavailable", now=1.0)
    gate.returned("success", 1.5, 9.0)
    assert not gate.closed


def test_a_probe_that_was_given_up_makes_room_for_the_next():
    gate = closed_gate()
    attempt(gate, "fail", now=3.0)
    assert gate.wait(3.0) == 0.0


def test_failures_of_attempts_from_before_the_closing_do_not_delay_the_probe():
    gate = CircuitBreaker()
    gate.sent()
    while not gate.closed:
        attempt(gate, "unavailable", now=1.0)
    before = gate.wait(1.0)
    gate.returned("timeout", 0.5, 1.0)
    assert gate.wait(1.0) == before


def test_the_time_it_was_closed_is_counted():
    gate = closed_gate(now=10.0)
    assert gate.held(12.0) == 2.0
    attempt(gate, "success", now=15.0)
    assert gate.held(99.0) == 5.0
