"""Trying whether the rate has anything to do with the refusals."""

from __future__ import annotations

from chatpool.policy.leap import Leap
from chatpool.policy.tally import Refusal


def refusal(sent_at):
    return Refusal(sent_at, sent_at, 0, 0, 0, None)


def refuse(leap, times, pause=0.02):
    for _ in range(times):
        leap.refused(10.0, pause)


def factors(leap, now, count):
    return [leap.sent(now) for _ in range(count)]


def leaping(leap, now=100.0):
    return leap.sent(now) > 1


def test_nothing_is_tried_before_the_third_refusal():
    leap = Leap()
    refuse(leap, 2)
    assert not leaping(leap)
    refuse(leap, 1)
    assert leaping(leap)


def test_a_few_calls_follow_three_times_as_soon():
    leap = Leap()
    refuse(leap, 3)
    assert factors(leap, 1.0, 11) == [3.0] * 8 + [1.0] * 3


def test_what_the_pause_refills_is_no_part_of_it():
    leap = Leap()
    refuse(leap, 3, pause=0.2)
    assert factors(leap, 1.0, 20).count(3.0) == 8 + 2 - 1


def test_it_is_passed_when_no_refusal_can_come_any_more():
    leap = Leap()
    refuse(leap, 3)
    factors(leap, 1.0, 12)
    assert not leap.passed(1.1, turnaround=0.1)
    assert leap.passed(1.3, turnaround=0.1)
    assert leap.in_a_row == 1
    assert not leap.passed(1.4, turnaround=0.1)


def test_after_one_that_was_passed_the_next_refusal_is_tried_again():
    leap = Leap()
    refuse(leap, 3)
    factors(leap, 1.0, 12)
    leap.passed(2.0, 0.01)
    refuse(leap, 1)
    assert leaping(leap)


def test_one_refusal_may_be_chance_and_two_are_not():
    leap = Leap()
    refuse(leap, 3)
    factors(leap, 1.0, 4)
    refuse(leap, 1)
    assert leaping(leap)
    leap.refused_too(refusal(1.0))
    assert not leaping(leap)
    assert not leap.passed(10.0, 0.01)


def test_refusals_of_what_was_sent_before_do_not_count():
    leap = Leap()
    refuse(leap, 3)
    factors(leap, 1.0, 4)
    for _ in range(5):
        leap.refused_too(refusal(0.9))
    assert leaping(leap)


def test_after_one_that_failed_twice_as_many_refusals_come_before_the_next():
    leap = Leap()
    for wanted in (3, 6, 12):
        refuse(leap, wanted - 1)
        assert not leaping(leap)
        refuse(leap, 1)
        assert leaping(leap)
        refuse(leap, 2)


def test_a_refusal_that_costs_a_long_pause_is_tried_less_often():
    leap = Leap()
    refuse(leap, 8, pause=1.0)
    assert not leaping(leap)
    refuse(leap, 1, pause=1.0)
    assert leaping(leap)
