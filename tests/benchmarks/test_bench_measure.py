"""The arithmetic of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.measure import Spread, grouped, ratios, rotated, spread


def test_a_spread_is_the_median_and_the_ends():
    assert spread([3, 1, 10]) == Spread(3, 1, 10)


def test_a_spread_is_shown_with_its_ends():
    assert spread([0.001, 0.0025, 1.5]).show(1, 1000) == "2.5 (1.0 - 1,500.0)"


def test_ratios_are_taken_within_a_round():
    ours = [{"round": 0, "cpu": 2.0}, {"round": 1, "cpu": 30.0}]
    theirs = [{"round": 1, "cpu": 10.0}, {"round": 0, "cpu": 1.0}]
    assert ratios(ours, theirs, lambda sample: sample["cpu"]) == [2.0, 3.0]


def test_a_round_without_a_reference_has_no_ratio():
    assert ratios([{"round": 0, "cpu": 2.0}], [{"round": 1, "cpu": 1.0}], lambda sample: sample["cpu"]) == []


@pytest.mark.parametrize(("turn", "order"), [(0, "abc"), (1, "bca"), (2, "cab"), (3, "abc")])
def test_every_round_begins_with_another_contender(turn, order):
    assert rotated("abc", turn) == list(order)


def test_nothing_can_be_rotated():
    assert rotated([], 3) == []


def test_samples_are_grouped_in_the_order_of_their_first_appearance():
    samples = [{"a": 2, "b": 1}, {"a": 1, "b": 1}, {"a": 2, "b": 1}]
    assert list(grouped(samples, "a").items()) == [(2, [samples[0], samples[2]]), (1, [samples[1]])]
    assert list(grouped(samples, "a", "b")) == [(2, 1), (1, 1)]
