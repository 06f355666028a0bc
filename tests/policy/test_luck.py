"""How many failures in a row are bad luck."""

from __future__ import annotations

import random

import pytest

from chatpool._policy.health import FailureRate, expected_failure_run


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
