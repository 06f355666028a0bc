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
    health.gate.sent()
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


@pytest.mark.parametrize(("on_their_way", "level"), [(0, 6), (1, 6), (2, 3), (4, 1), (7, 0)])
def test_the_streak_is_measured_in_calls_that_are_on_their_way(on_their_way, level):
    health = UpstreamHealth()
    for _ in range(6):
        send(health, "unavailable")
    assert health.view(0.0, on_their_way).level == level


def test_failures_that_bad_luck_explains_are_no_trouble():
    health = UpstreamHealth()
    for number in range(1000):
        send(health, "success" if number % 5 else "unavailable")
    for _ in range(4):
        send(health, "unavailable")
    assert health.view(0.0, 1) == HealthSnapshot(streak=4, level=0, luck=4, proven=True, succeeded_before=0.0)
    send(health, "unavailable")
    assert health.view(0.0, 1).level == 1


def test_where_nothing_has_failed_before_little_is_luck():
    health = UpstreamHealth()
    for _ in range(1000):
        send(health, "success")
    for _ in range(6):
        send(health, "unavailable")
    assert health.view(0.0, 1).level == 4


def test_a_line_is_proven_by_its_first_success_for_good():
    health = UpstreamHealth()
    assert not health.view(0.0, 1).proven
    send(health, "success")
    send(health, "unavailable")
    assert health.view(0.0, 1).proven


def test_it_tells_since_when_nothing_but_refusals_came():
    health = UpstreamHealth()
    send(health, "throttled", now=10.0)
    send(health, "throttled", now=20.0)
    assert health.view(70.0, 1) == HealthSnapshot(refused_for=60.0)
    send(health, "success", now=80.0)
    assert health.view(90.0, 1).refused_for is None


def test_it_tells_how_long_ago_the_latest_success_was():
    health = UpstreamHealth()
    assert health.view(5.0, 1).succeeded_before == math.inf
    send(health, "success", now=10.0)
    send(health, "success", now=20.0)
    send(health, "unavailable", now=30.0)
    assert health.view(50.0, 1).succeeded_before == 30.0


def test_who_knows_better_says_whether_the_server_is_down():
    health = UpstreamHealth()
    health.gate.sent()
    health.returned(Verdict("unavailable"), sent_at=0.0, now=1.0, down=True)
    assert health.view(5.0, 1).down_for == 5.0


def test_a_few_failures_are_no_outage():
    health = UpstreamHealth()
    send(health, "unavailable", now=10.0)
    assert health.view(700.0, 1).down_for is None


def test_a_refusal_holds_until_its_time_and_the_longest_wins():
    health, short, long = UpstreamHealth(), RateLimitError("short"), RateLimitError("long")
    health.refuse(100.0, long)
    health.refuse(50.0, short)
    assert health.refusal_at(99.9) is long
    assert health.refusal_at(100.0) is None


def test_stats_tell_how_long_the_pause_lasts_and_why():
    health = UpstreamHealth()
    assert health.stats(0.0) == LineStats()
    health.refuse(30.0, RateLimitError("come back tomorrow"))
    stats = health.stats(10.0)
    assert stats.paused_until == 20.0
    assert "come back tomorrow" in stats.why


def test_stats_tell_that_the_server_is_down():
    health = UpstreamHealth()
    for _ in range(50):
        send(health, "unavailable")
    assert "server is down" in health.stats(0.0).why


def attempts(luck, number, share, rng):
    """So many attempts, of which this share fails; returns the longest series of failures."""
    longest = streak = 0
    for _ in range(number):
        if rng.random() < share:
            streak += 1
            longest = max(longest, streak)
        else:
            luck.succeeded(streak)
            streak = 0
    return longest


def test_nothing_is_where_nothing_has_succeeded():
    assert FailureRate().failures_in_a_row() == 0


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (10, 2), (1000, 2), (100_000, 2)])
def test_one_or_two_are_where_nothing_has_failed(number, expected):
    luck = FailureRate()
    attempts(luck, number, 0.0, random.Random(1))
    assert luck.failures_in_a_row() == expected


@pytest.mark.parametrize(("share", "usual"), [(0.01, 2), (0.02, 3), (0.05, 4)])
def test_of_random_failures_the_longest_series_is_about_as_long(share, usual):
    rng, longer = random.Random(7), 0
    for _ in range(50):
        luck = FailureRate()
        attempts(luck, 900, share, rng)
        assert abs(luck.failures_in_a_row() - usual) <= 1
        longer += attempts(luck, 900, share, rng) > luck.failures_in_a_row()
    assert longer <= 5


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_at_most_half_of_a_calls_retries_are_left_to_chance(share):
    luck = FailureRate()
    attempts(luck, 900, share, random.Random(5))
    assert luck.failures_in_a_row() == 4


@pytest.mark.parametrize("failures", [30, 166])
def test_an_outage_is_no_bad_luck(failures):
    luck = FailureRate()
    attempts(luck, 100, 0.0, random.Random(1))
    luck.succeeded(failures)
    assert luck.failures_in_a_row() <= 3


def test_what_was_before_the_first_success_neither():
    luck = FailureRate()
    luck.succeeded(200)
    attempts(luck, 20, 0.0, random.Random(1))
    assert luck.failures_in_a_row() == 2


def test_what_was_long_ago_counts_less():
    luck = FailureRate()
    attempts(luck, 2000, 0.5, random.Random(3))
    attempts(luck, 20_000, 0.0, random.Random(3))
    assert luck.failures_in_a_row() == 2


@pytest.mark.parametrize(
    ("attempts", "share", "series"), [(1000, 0.01, 3), (1000, 0.1, 4), (1000, 0.4, 9), (1, 0.4, 1)]
)
def test_the_longest_series_of_failures_that_is_chance(attempts, share, series):
    assert expected_failure_run(attempts, share) == series
