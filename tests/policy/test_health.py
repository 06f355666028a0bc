"""What is remembered of one (endpoint, model)."""

from __future__ import annotations

import pytest

from chatpool.errors import RateLimitError
from chatpool.policy.health import LineHealth
from chatpool.types import LineStats, Verdict


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
    health = LineHealth()
    for kind in kinds:
        health.observe(Verdict(kind))
    assert health.streak == streak


def test_a_line_is_proven_by_its_first_success_for_good():
    health = LineHealth()
    assert not health.proven
    health.observe(Verdict("success"))
    health.observe(Verdict("unavailable"))
    assert health.proven


def test_a_refusal_holds_until_its_time_and_the_longest_wins():
    health, short, long = LineHealth(), RateLimitError("short"), RateLimitError("long")
    health.refuse(100.0, long)
    health.refuse(50.0, short)
    assert health.refusal_at(99.9) is long
    assert health.refusal_at(100.0) is None


def test_stats_tell_how_long_the_pause_lasts_and_why():
    health = LineHealth()
    assert health.stats(0.0) == LineStats()
    health.refuse(30.0, RateLimitError("come back tomorrow"))
    stats = health.stats(10.0)
    assert stats.paused_until == 20.0
    assert "come back tomorrow" in stats.why
