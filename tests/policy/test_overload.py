"""Failures of a server as signs of its load."""

from __future__ import annotations

import random

import pytest

from chatpool._policy.adaptive.overload import Overload


def fail(overload, numbers):
    """Calls with these numbers fail, of which ten more were sent after each; returns what was said of each."""
    return [overload.failed(number, number + 11) for number in numbers]


def overloaded():
    """One that has just been told that most calls fail."""
    overload = Overload()
    fail(overload, range(20))
    return overload


@pytest.mark.parametrize(("share", "mistaken"), [(0.02, 0), (0.1, 0), (0.2, 0.15)])
def test_failures_at_random_are_no_refusals_or_very_rarely(share, mistaken):
    known = 0
    for seed in range(50):
        overload, rng = Overload(), random.Random(seed)
        fail(overload, [number for number in range(2000) if rng.random() < share])
        known += overload.known
    assert known <= 50 * mistaken


def test_when_most_calls_fail_it_is_known_within_a_dozen():
    overload = Overload()
    said = fail(overload, range(12))
    assert said == sorted(said)  # from then on, failures are refusals
    assert not said[3]
    assert said[-1]


def test_however_much_was_answered_before():
    overload = Overload()
    fail(overload, range(50_000, 50_012))
    assert overload.known


def test_a_few_answers_between_failures_do_not_hide_it():
    overload, rng = Overload(), random.Random(5)
    fail(overload, [number for number in range(100) if rng.random() < 0.85])
    assert overload.known


class TestOutage:
    def test_where_nothing_but_the_last_probe_was_answered_there_was_no_limit(self):
        overload = overloaded()
        assert overload.was_outage()
        overload.answered(40)
        assert overload.was_outage()
        overload.answered(41)
        assert not overload.was_outage()

    def test_answers_to_calls_from_before_do_not_count(self):
        overload = overloaded()
        for number in range(5):
            overload.answered(number)
        assert overload.was_outage()

    def test_without_overload_there_was_none(self):
        assert not Overload().was_outage()

    @pytest.mark.parametrize(
        ("probes", "in_flight", "down"), [(4, 0, False), (5, 0, True), (11, 3, False), (12, 3, True)]
    )
    def test_it_is_down_after_some_probes_and_more_while_others_may_yet_be_answered(self, probes, in_flight, down):
        assert overloaded().down(probes, in_flight) is down


class TestForgetting:
    def test_it_begins_anew(self):
        overload = overloaded()
        overload.forget(0.0, 100)
        assert not overload.known
        assert fail(overload, range(40, 100)) == [False] * 60  # sent before
        assert fail(overload, range(100, 112))[-1]

    def test_of_a_server_that_fails_often_by_chance_as_much_is_expected(self):
        def runs_in_which_it_is_known(share):
            known = 0
            for seed in range(20):
                overload, rng = overloaded(), random.Random(seed)
                overload.forget(share, 0)
                fail(overload, [number for number in range(2000) if rng.random() < 0.4])
                known += overload.known
            return known

        assert runs_in_which_it_is_known(0.0) > 15 > 10 > runs_in_which_it_is_known(0.4)
