"""Circuit breakers, and rejections that many calls have in common."""

from __future__ import annotations

import math
import random

import pytest

from chatpool import AuthenticationError
from chatpool._policy.circuit_breaker import CircuitBreaker, CommonRejections, CredentialBreaker


def attempt(breaker, kind, now=0.0, sent_at=None):
    breaker.sent()
    breaker.returned(kind, now if sent_at is None else sent_at, now)


def open_breaker(now=0.0):
    breaker = CircuitBreaker()
    while not breaker.is_open:
        attempt(breaker, "unavailable", now)
    return breaker


def test_it_opens_after_a_dozen_failures_of_a_lone_call():
    breaker = CircuitBreaker()
    for _ in range(11):
        attempt(breaker, "unavailable")
    assert not breaker.is_open
    attempt(breaker, "timeout")
    assert breaker.is_open


def test_the_more_calls_in_flight_the_more_failures_it_takes():
    breaker = CircuitBreaker()
    for _ in range(100):
        breaker.sent()
    for _ in range(100):
        breaker.returned("unavailable", 0.0, 1.0)
    assert not breaker.is_open
    for _ in range(100):
        attempt(breaker, "unavailable", 2.0)
    assert breaker.is_open


@pytest.mark.parametrize("kind", ["fail", "throttled", "retry"])
def test_answers_of_a_server_that_works_do_not_open_it(kind):
    breaker = CircuitBreaker()
    for _ in range(1000):
        attempt(breaker, kind)
    assert not breaker.is_open


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_random_failures_do_not_open_it(share):
    dice = random.Random(7)
    breaker, openings = CircuitBreaker(), 0
    in_flight = []
    for step in range(20_000):
        if len(in_flight) < 64:
            breaker.sent()
            in_flight.append(float(step))
            continue
        sent_at = in_flight.pop(dice.randrange(64))
        was_open = breaker.is_open
        breaker.returned("unavailable" if dice.random() < share else "success", sent_at, float(step))
        openings += breaker.is_open and not was_open
    assert openings == 0


def test_who_is_told_that_the_server_is_not_down_does_not_open_it():
    breaker = CircuitBreaker()
    for _ in range(1000):
        breaker.sent()
        breaker.returned("unavailable", 0.0, 1.0, down=False)
    assert not breaker.is_open


def test_who_is_told_that_it_is_opens_it_at_the_next_failure():
    breaker = CircuitBreaker()
    breaker.sent()
    breaker.returned("throttled", 0.0, 1.0, down=True)
    assert not breaker.is_open
    breaker.sent()
    breaker.returned("unavailable", 1.0, 2.0, down=True)
    assert breaker.is_open
    assert breaker.down_since == 1.0
    assert breaker.wait(2.0) == 0.25


def test_once_it_is_open_only_a_success_closes_it():
    breaker = open_breaker()
    breaker.sent()
    breaker.returned("unavailable", 1.0, 2.0, down=False)
    assert breaker.is_open
    breaker.sent()
    breaker.returned("success", 3.0, 4.0, down=True)
    assert not breaker.is_open


def test_probes_go_out_one_at_a_time_with_growing_pauses_up_to_a_second():
    breaker = open_breaker()
    now, pauses = 0.0, []
    for _ in range(5):
        pauses.append(breaker.wait(now))
        now += pauses[-1]
        breaker.sent()
        assert breaker.wait(now) == math.inf
        breaker.returned("unavailable", now, now)
    assert pauses == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_a_probe_that_succeeds_closes_it():
    breaker = open_breaker()
    attempt(breaker, "success", now=5.0)
    assert not breaker.is_open
    assert breaker.wait(5.0) == 0.0


def test_a_success_from_before_the_failures_does_not_close_it():
    breaker = CircuitBreaker()
    breaker.sent()
    for _ in range(20):
        attempt(breaker, "unavailable", now=1.0)
    breaker.returned("success", 0.5, 9.0)
    assert breaker.is_open


def test_a_late_success_sent_after_the_failures_began_closes_it():
    breaker = CircuitBreaker()
    attempt(breaker, "unavailable", now=1.0)
    breaker.sent()
    for _ in range(20):
        attempt(breaker, "unavailable", now=1.0)
    breaker.returned("success", 1.5, 9.0)
    assert not breaker.is_open


def test_a_probe_that_was_given_up_makes_room_for_the_next():
    breaker = open_breaker()
    attempt(breaker, "fail", now=3.0)
    assert breaker.wait(3.0) == 0.0


def test_failures_of_attempts_from_before_it_opened_do_not_delay_the_probe():
    breaker = CircuitBreaker()
    breaker.sent()
    while not breaker.is_open:
        attempt(breaker, "unavailable", now=1.0)
    before = breaker.wait(1.0)
    breaker.returned("timeout", 0.5, 1.0)
    assert breaker.wait(1.0) == before


def test_the_time_it_was_open_is_counted():
    breaker = open_breaker(now=10.0)
    assert breaker.total_open_seconds(12.0) == 2.0
    attempt(breaker, "success", now=15.0)
    assert breaker.total_open_seconds(99.0) == 5.0


class TestCommonRejections:
    @pytest.mark.parametrize(("max_workers", "enough"), [(1, 10), (10, 10), (16, 16), (64, 64)])
    def test_ten_calls_or_as_many_as_there_are_workers_show_it(self, max_workers, enough):
        rejections = CommonRejections(max_workers)
        found = [rejections.rejected("no", call) for call in range(enough)]
        assert found == [False] * (enough - 1) + [True]

    def test_a_call_that_is_rejected_again_counts_once(self):
        rejections = CommonRejections(1)
        assert not any(rejections.rejected("no", call % 9) for call in range(100))

    def test_other_rejections_count_apart(self):
        rejections = CommonRejections(1)
        assert not any(rejections.rejected(f"row {call} is wrong", call) for call in range(1000))

    def test_once_it_is_shown_the_count_begins_anew(self):
        rejections = CommonRejections(1)
        found = [rejections.rejected("no", call) for call in range(20)]
        assert [number for number, all_are in enumerate(found) if all_are] == [9, 19]


class TestCredentialBreaker:
    def test_it_lets_one_call_at_a_time_try(self):
        breaker = CredentialBreaker()
        assert breaker.trip(AuthenticationError("no"), sent_at=0.0, now=1.0)
        assert breaker.wait(2.0) == pytest.approx(59.0)
        assert breaker.wait(61.0) == 0.0
        breaker.sent()
        assert breaker.wait(61.0) == float("inf")

    def test_those_that_were_in_flight_tell_nothing_new(self):
        breaker = CredentialBreaker()
        breaker.trip(AuthenticationError("no"), sent_at=0.0, now=1.0)
        assert not breaker.trip(AuthenticationError("no"), sent_at=0.5, now=2.0)
        breaker.returned("success", sent_at=0.5, now=2.0)
        assert breaker.wait(2.0) == pytest.approx(59.0)

    def test_the_pause_grows_with_each_probe_up_to_ten_minutes(self):
        breaker, now, pauses = CredentialBreaker(), 0.0, []
        for _ in range(6):
            breaker.trip(AuthenticationError("no"), sent_at=now, now=now)
            pauses.append(breaker.wait(now))
            now += pauses[-1]
            breaker.sent()
        assert pauses == [60, 120, 240, 480, 600, 600]

    def test_a_probe_that_is_lost_is_made_again_later(self):
        breaker = CredentialBreaker()
        breaker.trip(AuthenticationError("no"), sent_at=0.0, now=0.0)
        breaker.sent()
        breaker.returned("timeout", sent_at=60.0, now=70.0)
        assert breaker.wait(70.0) == 60.0

    def test_a_success_resets_it(self):
        breaker = CredentialBreaker()
        breaker.trip(AuthenticationError("no"), sent_at=0.0, now=0.0)
        breaker.sent()
        breaker.returned("success", sent_at=60.0, now=61.0)
        assert (breaker.wait(61.0), breaker.reason) == (0.0, None)
