"""What is remembered of one (endpoint, model)."""

from __future__ import annotations

import math

import pytest

from chatpool._policy.health import HealthSnapshot, UpstreamHealth
from chatpool._values import Verdict
from chatpool.errors import RateLimitError
from chatpool.types import LineStats


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
