"""Rate probe: a test if the server limits the rate at all."""

from __future__ import annotations

import math

import pytest

from chatpool._policy.adaptive.rate import RateProbe
from chatpool._policy.adaptive.send_log import Rejection, SendLog

RATE = 10.0


class Case:
    """A probe with its send log and a clock."""

    def __init__(self):
        self.send_log, self.now = SendLog(), 0.0
        self.probe = RateProbe(self.send_log)

    @property
    def probing(self):
        return self.probe.factor() > 1

    def send(self, count=1):
        """The records of so many calls, a hundredth of a second from each other."""
        records = []
        for _ in range(count):
            self.now += 0.01
            records.append(self.send_log.send(self.now))
        return records

    def reject(self, record, *, rate=RATE, pause=0.02):
        return self.probe.rejected(self.send_log.reject(record, self.now, None), rate, pause)

    def reject_every(self, share, times, **options):
        """So many rejections, each of one call in ``1 / share``; a probe that begins meanwhile is none of them."""
        for _ in range(times):
            *_, last = self.send(round(1 / share))
            self.reject(last, **options)
        return self

    def settle(self):
        """Nothing that has been sent can be rejected any more."""
        self.now += 1.0
        return self.probe.passed(self.now)


def probing(share=0.1, **options):
    return Case().reject_every(share, 4, **options)


def test_nothing_is_tried_before_the_fourth_rejection():
    case = Case().reject_every(0.1, 3)
    assert not case.probing
    case.reject_every(0.1, 1)
    assert case.probing


def test_a_rejection_that_costs_a_long_pause_is_tried_less_often():
    case = Case().reject_every(0.1, 11, pause=1.0)
    assert not case.probing
    case.reject_every(0.1, 1, pause=1.0)
    assert case.probing


def test_but_not_where_far_more_was_accepted_before():
    case = Case()
    case.send(2000)  # a hundred a second, for twenty seconds
    case.reject_every(0.1, 3, rate=20, pause=1.0)
    assert not case.probing
    case.reject_every(0.1, 1, rate=20, pause=1.0)
    assert case.probing


def test_some_calls_follow_three_times_as_soon():
    case = probing()
    factors = []
    for _ in range(25):
        factors.append(case.probe.factor())
        case.send()
    assert factors == [3.0] * 21 + [1.0] * 4  # twenty, and what is refilled in the pause


class TestPassing:
    def test_it_is_passed_when_enough_calls_were_accepted(self):
        case = probing()
        case.send(12)
        assert case.settle() == 3 * RATE
        assert not case.probing

    def test_but_not_by_so_few_that_the_pause_refilled_them(self):
        case = probing(pause=0.25)
        case.send(12)
        assert case.settle() == 0.0
        assert case.probing
        case.send(8)
        assert case.settle() == 3 * RATE

    def test_nor_by_what_may_still_be_rejected(self):
        case = probing()
        case.send_log.rejection_latency = 0.1
        case.send(12)
        assert case.probe.passed(case.now + 0.1) == 0.0
        assert case.probe.passed(case.now + 0.3) == 3 * RATE

    def test_it_is_told_once(self):
        case = probing()
        case.send(12)
        case.settle()
        assert case.settle() == 0.0

    def test_one_rejection_among_many_calls_may_be_chance(self):
        case = probing(share=0.25)
        fifth = case.send(5)[-1]
        case.send(15)
        assert case.reject(fifth)
        assert case.settle() == 3 * RATE

    def test_the_next_rejection_is_tried_again(self):
        case = probing()
        case.send(12)
        case.settle()
        assert not case.probing
        assert case.reject_every(0.1, 1).probing

    def test_with_too_many_rejections_to_be_passed_and_too_few_to_fail_it_ends_as_failed(self):
        case = probing(share=0.25)
        for record in case.send(21)[2::2]:
            assert case.reject(record)
        assert case.settle() == 0.0
        assert not case.probing
        assert not case.reject_every(0.25, 15).probing
        assert case.reject_every(0.25, 1).probing


class TestFailing:
    def test_when_most_are_rejected_it_is_the_rate(self):
        case = probing()
        records = case.send(6)
        assert case.reject(records[2])  # part of the probe, so nothing follows from it ...
        assert not case.reject(records[3])  # ... until it has failed
        assert not case.probing
        assert case.settle() == 0.0

    def test_a_single_rejection_is_not_enough_however_rare_they_were(self):
        case = probing(share=0.02)
        assert case.reject(case.send(2)[-1])
        assert case.probing

    def test_the_order_in_which_they_come_back_does_not_matter(self):
        case = probing()
        records = case.send(6)
        assert case.reject(records[3])
        assert not case.reject(records[2])
        assert not case.probing

    def test_rejections_of_what_was_sent_before_do_not_count(self):
        case = Case()
        before = case.send(40)
        case.reject_every(0.1, 4)
        for record in before[:8]:
            assert not case.reject(record)
        assert case.probing

    def test_each_time_four_times_as_many_rejections_come_before_the_next(self):
        case = Case()
        for wanted in (4, 16, 64):
            case.reject_every(0.1, wanted - 1)
            assert not case.probing
            case.reject_every(0.1, 1)
            assert case.probing
            for record in case.send(6)[2:4]:
                case.reject(record)


class TestChance:
    def rejected(self, share, times, *, rate=RATE, case=None):
        """So many rejections at this rate, each of one call in ``1 / share``; every probe that follows is passed."""
        case = case or Case()
        for _ in range(times):
            *_, last = case.send(round(1 / share))
            case.reject(last, rate=rate)
            if case.probing:
                case.send(20)
                assert case.settle()
        return case

    def test_what_was_rejected_far_below_a_rate_that_is_accepted_was_rejected_by_chance(self):
        assert self.rejected(0.1, 10).probe.random_share(3 * RATE) == pytest.approx(0.1)

    def test_nothing_is_known_from_a_few_rejections(self):
        assert self.rejected(0.1, 7).probe.random_share(3 * RATE) == 0.0
        assert self.rejected(0.1, 8).probe.random_share(3 * RATE) > 0.0

    def test_nor_from_those_near_that_rate(self):
        assert self.rejected(0.1, 10).probe.random_share(1.5 * RATE) == 0.0

    def test_only_those_far_below_it_are_counted(self):
        case = self.rejected(0.5, 8, rate=5 * RATE, case=self.rejected(0.1, 8))
        assert case.probe.random_share(3 * RATE) == pytest.approx(0.1)

    def test_it_is_what_may_be_chance(self):
        assert self.rejected(1.0, 10).probe.random_share(3 * RATE) == 0.4

    def test_what_was_rejected_in_a_probe_is_no_part_of_it(self):
        case = probing()
        for record in case.send(6)[2:4]:
            case.reject(record)
        assert not case.probing
        assert self.rejected(0.1, 8, case=case).probe.random_share(3 * RATE) == pytest.approx(0.1)


def test_rejections_of_what_was_on_its_way_show_no_chance():
    """They were sent at the rate before, however low it has become by now."""
    case = Case()
    batch = case.send(60)
    case.reject(batch[0], rate=RATE)
    for record in batch[1:40]:
        case.reject(record, rate=RATE / 10)
    assert case.probe.random_share(RATE) == 0.0


def test_a_rejection_with_a_pause_of_hours_begins_none_that_never_ends():
    case = Case()
    for _ in range(12):
        case.probe.rejected(Rejection(0.0, 0.0, 0, 0, 0, 3600.0), RATE, 3600.0)
    assert not math.isinf(case.probe.factor())
    case.send_log.sent += 3600 * 10 + 20
    assert not case.probing
