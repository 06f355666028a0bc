"""Health of one (endpoint, model), and the failures in a row that chance explains."""

from __future__ import annotations

import math
import random

import pytest

from chatpool._policy.health import FailureRate, HealthSnapshot, UpstreamHealth, expected_failure_run
from chatpool.errors import RateLimitError
from chatpool.types import LineStats, Verdict


def send(health, kind, now=0.0):
    """One attempt, out and back."""
    health.circuit.sent()
    health.returned(Verdict(kind), sent_at=now, now=now)


@pytest.mark.parametrize(
    ("kinds", "streak"),
    [
        ([], 0),
        (["unavailable", "timeout", "retry"], 3),
        (["unavailable", "success"], 0),
        (["unavailable", "success", "timeout"], 1),
        (["fail", "fatal", "throttled"], 0),
    ],
)
def test_the_streak_counts_failures_of_the_server_since_the_last_success(kinds, streak):
    health = UpstreamHealth()
    for kind in kinds:
        send(health, kind)
    assert health.streak == streak


@pytest.mark.parametrize(("on_their_way", "excess_streak"), [(0, 6), (1, 6), (2, 3), (4, 1), (7, 0)])
def test_the_streak_is_measured_in_calls_that_are_on_their_way(on_their_way, excess_streak):
    health = UpstreamHealth()
    for _ in range(6):
        send(health, "unavailable")
    assert health.snapshot(0.0, on_their_way).excess_streak == excess_streak


def test_failures_that_chance_explains_are_no_trouble():
    health = UpstreamHealth()
    for number in range(1000):
        send(health, "success" if number % 5 else "unavailable")
    for _ in range(4):
        send(health, "unavailable")
    assert health.snapshot(0.0, 1) == HealthSnapshot(
        streak=4, excess_streak=0, chance_failures=4, proven=True, since_success=0.0
    )
    send(health, "unavailable")
    assert health.snapshot(0.0, 1).excess_streak == 1


def test_where_nothing_has_failed_before_little_is_chance():
    health = UpstreamHealth()
    for _ in range(1000):
        send(health, "success")
    for _ in range(6):
        send(health, "unavailable")
    assert health.snapshot(0.0, 1).excess_streak == 4


def test_a_line_is_proven_by_its_first_success_for_good():
    health = UpstreamHealth()
    assert not health.snapshot(0.0, 1).proven
    send(health, "success")
    send(health, "unavailable")
    assert health.snapshot(0.0, 1).proven


def test_it_tells_since_when_nothing_but_rejections_came():
    health = UpstreamHealth()
    send(health, "throttled", now=10.0)
    send(health, "throttled", now=20.0)
    assert health.snapshot(70.0, 1) == HealthSnapshot(rejected_for=60.0)
    send(health, "success", now=80.0)
    assert health.snapshot(90.0, 1).rejected_for is None


def test_it_tells_how_long_ago_the_latest_success_was():
    health = UpstreamHealth()
    assert health.snapshot(5.0, 1).since_success == math.inf
    send(health, "success", now=10.0)
    send(health, "success", now=20.0)
    send(health, "unavailable", now=30.0)
    assert health.snapshot(50.0, 1).since_success == 30.0


def test_who_knows_better_says_whether_the_server_is_down():
    health = UpstreamHealth()
    health.circuit.sent()
    health.returned(Verdict("unavailable"), sent_at=0.0, now=1.0, down=True)
    assert health.snapshot(5.0, 1).down_for == 5.0


def test_a_few_failures_are_no_outage():
    health = UpstreamHealth()
    send(health, "unavailable", now=10.0)
    assert health.snapshot(700.0, 1).down_for is None


def test_a_rejection_holds_until_its_time_and_the_longest_wins():
    health, short, long = UpstreamHealth(), RateLimitError("short"), RateLimitError("long")
    health.reject(100.0, long)
    health.reject(50.0, short)
    assert health.rejection_at(99.9) is long
    assert health.rejection_at(100.0) is None


def test_stats_tell_how_long_the_pause_lasts_and_why():
    health = UpstreamHealth()
    assert health.stats(0.0) == LineStats()
    health.reject(30.0, RateLimitError("come back tomorrow"))
    stats = health.stats(10.0)
    assert stats.paused_until == 20.0
    assert "come back tomorrow" in stats.why


def test_stats_tell_that_the_server_is_down():
    health = UpstreamHealth()
    for _ in range(50):
        send(health, "unavailable")
    assert "server is down" in health.stats(0.0).why


def attempts(failure_rate, number, share, rng):
    """So many attempts, of which this share fails; returns the longest series of failures."""
    longest = streak = 0
    for _ in range(number):
        if rng.random() < share:
            streak += 1
            longest = max(longest, streak)
        else:
            failure_rate.succeeded(streak)
            streak = 0
    return longest


class TestFailureRate:
    def test_nothing_is_where_nothing_has_succeeded(self):
        assert FailureRate().expected_run() == 0

    @pytest.mark.parametrize(("number", "expected"), [(1, 1), (10, 2), (1000, 2), (100_000, 2)])
    def test_one_or_two_are_where_nothing_has_failed(self, number, expected):
        failure_rate = FailureRate()
        attempts(failure_rate, number, 0.0, random.Random(1))
        assert failure_rate.expected_run() == expected

    @pytest.mark.parametrize(("share", "usual"), [(0.01, 2), (0.02, 3), (0.05, 4)])
    def test_of_random_failures_the_longest_series_is_about_as_long(self, share, usual):
        rng, longer = random.Random(7), 0
        for _ in range(50):
            failure_rate = FailureRate()
            attempts(failure_rate, 900, share, rng)
            assert abs(failure_rate.expected_run() - usual) <= 1
            longer += attempts(failure_rate, 900, share, rng) > failure_rate.expected_run()
        assert longer <= 5

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_at_most_half_of_a_calls_retries_are_left_to_chance(self, share):
        failure_rate = FailureRate()
        attempts(failure_rate, 900, share, random.Random(5))
        assert failure_rate.expected_run() == 4

    @pytest.mark.parametrize("failures", [30, 166])
    def test_an_outage_is_not_chance(self, failures):
        failure_rate = FailureRate()
        attempts(failure_rate, 100, 0.0, random.Random(1))
        failure_rate.succeeded(failures)
        assert failure_rate.expected_run() <= 3

    def test_what_was_before_the_first_success_neither(self):
        failure_rate = FailureRate()
        failure_rate.succeeded(200)
        attempts(failure_rate, 20, 0.0, random.Random(1))
        assert failure_rate.expected_run() == 2

    def test_what_was_long_ago_counts_less(self):
        failure_rate = FailureRate()
        attempts(failure_rate, 2000, 0.5, random.Random(3))
        attempts(failure_rate, 20_000, 0.0, random.Random(3))
        assert failure_rate.expected_run() == 2


@pytest.mark.parametrize(
    ("attempts", "share", "series"), [(1000, 0.01, 3), (1000, 0.1, 4), (1000, 0.4, 9), (1, 0.4, 1)]
)
def test_the_longest_series_of_failures_that_is_chance(attempts, share, series):
    assert expected_failure_run(attempts, share) == series
