"""Limits that a user has set."""

from __future__ import annotations

import pytest

from chatpool.config import Limits
from chatpool.policy.configured import ConfiguredLimits


def test_requests_are_spread_over_the_minute():
    limits = ConfiguredLimits(Limits(requests_per_minute=600))
    for _ in range(10):
        assert limits.wait(0.0, 0) == 0
        limits.sent(0.0, 0)
    assert limits.wait(0.0, 0) == pytest.approx(60 / 591)


def test_the_burst_is_so_many_seconds_worth():
    limits = ConfiguredLimits(Limits(requests_per_minute=600, burst=3))
    sent = 0
    while limits.wait(0.0, 0) == 0:
        limits.sent(0.0, 0)
        sent += 1
    assert sent == 30


def test_both_resources_are_taken_in_one_step_and_the_scarcer_one_decides():
    limits = ConfiguredLimits(Limits(requests_per_minute=600, tokens_per_minute=60_000))
    limits.sent(0.0, 1000)
    assert limits.wait(0.0, 0) == 0
    assert limits.wait(0.0, 1000) == pytest.approx(1000 / (59_000 / 60))


def test_part_of_a_request_is_none():
    limits = ConfiguredLimits(Limits(requests_per_minute=2.9))
    times, now = [], 0.0
    for _ in range(5):
        now += limits.wait(now, 0)
        limits.sent(now, 0)
        times.append(now)
    assert times == pytest.approx([0, 30, 60, 90, 120])


def test_what_was_not_used_is_given_back():
    limits = ConfiguredLimits(Limits(tokens_per_minute=60_000))
    limits.sent(0.0, 30_000)
    assert limits.wait(0.0, 500) > 20
    limits.corrected(0.0, 0.5, 30_000, 600)
    assert limits.wait(0.5, 500) < 1
    assert limits.wait(5.0, 59_000) == 0


def test_what_was_used_beyond_the_estimate_is_taken_too():
    limits = ConfiguredLimits(Limits(tokens_per_minute=60_000))
    limits.sent(0.0, 100)
    limits.corrected(0.0, 0.5, 100, 30_000)
    assert limits.wait(0.5, 500) > 20


def test_a_request_that_was_refused_still_counts_as_a_request():
    limits = ConfiguredLimits(Limits(requests_per_minute=60, tokens_per_minute=60_000))
    limits.sent(0.0, 1000)
    limits.corrected(0.0, 0.1, 1000, 0.0)
    assert limits.wait(0.1, 1000) == pytest.approx(0.9)


def test_a_request_above_the_limit_is_too_large_and_the_reason_says_what_to_do():
    limits = ConfiguredLimits(Limits(tokens_per_minute=10_000))
    assert limits.too_large(10_000) is None
    assert "lower its max_tokens" in limits.too_large(10_001)
    assert ConfiguredLimits(Limits(requests_per_minute=1)).too_large(10**9) is None
