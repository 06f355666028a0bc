"""How many failures in a row are bad luck."""

from __future__ import annotations

import random

import pytest

from chatpool.policy.luck import Luck


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
    assert Luck().failures_in_a_row() == 0


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (10, 2), (1000, 2), (100_000, 2)])
def test_one_or_two_are_where_nothing_has_failed(number, expected):
    luck = Luck()
    attempts(luck, number, 0.0, random.Random(1))
    assert luck.failures_in_a_row() == expected


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8])
def test_of_random_failures_the_longest_series_is_about_as_long(share):
    rng, beyond = random.Random(7), 0
    for _ in range(50):
        luck = Luck()
        attempts(luck, 1000, share, rng)
        beyond += attempts(luck, 500, share, rng) > luck.failures_in_a_row() + 2
    assert beyond <= 5


def test_what_was_long_ago_counts_less():
    luck = Luck()
    attempts(luck, 2000, 0.5, random.Random(3))
    before = luck.failures_in_a_row()
    attempts(luck, 20_000, 0.0, random.Random(3))
    assert luck.failures_in_a_row() < before / 3
