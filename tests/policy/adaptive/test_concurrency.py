"""Concurrency controller, and the share of its limit that is yielded to other clients."""

from __future__ import annotations

import math

import pytest

from chatpool._policy.adaptive.concurrency import ConcurrencyController, FairShareYield
from chatpool._policy.adaptive.send_log import SendLog


def send_log(in_flight, *, latency=0.0, rejection_latency=0.01):
    made = SendLog()
    made.in_flight, made.latency, made.rejection_latency = in_flight, latency, rejection_latency
    return made


def at_limit(control, start, end):
    """Ask now and then, always with the limit reached; returns the moments at which it was raised."""
    raised, now = [], start
    while now < end:
        if control.wait(now, send_log(control.limit)) == 0:
            raised.append(round(now, 2))
        now += 0.01
    return raised


def first_probe(control, start):
    """The moment of the first probe, when the limit is reached all the time from ``start`` on."""
    now = start
    while control.wait(now, send_log(control.limit)) > 0:
        now += 0.01
    return now


def test_below_the_limit_nothing_waits():
    assert ConcurrencyController(5).wait(0.0, send_log(4)) == 0


def test_at_the_limit_a_call_waits_for_the_next_probe():
    assert ConcurrencyController(5).wait(0.0, send_log(5)) == pytest.approx(1.0)


def test_above_a_limit_that_was_lowered_something_has_to_end_first():
    assert math.isinf(ConcurrencyController(5).wait(0.0, send_log(6)))


def test_after_a_second_at_the_limit_one_more_is_tried():
    control = ConcurrencyController(5)
    assert at_limit(control, 0, 1.1) == [1.0]
    assert control.limit == 6
    assert control.probing


def test_probes_that_hold_follow_sooner_and_go_further():
    control = ConcurrencyController(20)
    at_limit(control, 0, 3.05)
    assert control.limit == 20 + 1 + 2 + 4 + 6 + 8  # eight is a quarter of 33


def test_a_step_is_at_most_a_quarter_of_the_limit():
    control = ConcurrencyController(8)
    limits = []
    for tenth in range(60):
        at_limit(control, tenth / 10, tenth / 10 + 0.1)
        limits.append(control.limit)
    assert all(after - before <= max(1, before / 4) for before, after in zip(limits, limits[1:]))


def test_a_probe_that_is_rejected_is_taken_back_and_the_next_waits_twice_as_long():
    control = ConcurrencyController(4)  # so few that none of them is left to others
    waits, now = [], 0.0
    for _ in range(4):
        probed = first_probe(control, now)
        waits.append(round(probed - now))
        control.rejected(4, latency=2.0)
        assert control.limit == 4
        now = probed
    assert waits == [1, 2, 4, 4]


def test_a_limit_that_does_not_bind_is_not_raised():
    control = ConcurrencyController(5)
    control.wait(0.0, send_log(5))
    assert control.wait(100.0, send_log(5)) == pytest.approx(1.0)
    assert control.limit == 5


def test_the_more_answers_the_sooner_the_next_probe_after_many_that_were_rejected():
    for latency, probe_interval in ((0.1, 1.5), (0.6, 3.0), (5.0, 4.0)):
        control, now = ConcurrencyController(4), 0.0
        for _ in range(4):
            now = first_probe(control, now)
            control.rejected(4, latency)
        assert first_probe(control, now) - now == pytest.approx(probe_interval, abs=0.02)


def test_a_probe_keeps_its_distance_so_that_no_rate_would_mind():
    control, calls = ConcurrencyController(2), send_log(2, latency=0.6)
    control.wait(0.0, calls)
    control.wait(1.0, calls)
    assert control.limit == 3
    control.sent(1.0, calls)
    assert control.wait(1.0, send_log(1, latency=0.6)) == 0
    # Three in flight of 0.6 s each: an answer every 0.2 s.
    assert control.wait(1.0, calls) == pytest.approx(0.9 * 0.2)


def test_a_probe_is_sent_between_calls_that_follow_each_other_evenly():
    # Answers that take equally long leave no gap that is longer than the others.
    control, calls = ConcurrencyController(4), send_log(4, latency=0.4)
    for tenth in range(20):
        now = tenth / 10
        control.sent(now, send_log(3, latency=0.4))  # it takes the place of one that has just ended
        wait = control.wait(now, calls)
    assert control.limit == 5
    assert wait <= 0.9 * 0.4 / 5


@pytest.mark.parametrize("at_once", [1, 100])
def test_however_many_are_sent_at_once_a_probe_waits_for_the_distance_to_the_last(at_once):
    control, calls = ConcurrencyController(100), send_log(100, latency=10.0)
    for number in range(at_once):
        control.sent(0.0, send_log(number, latency=10.0))
    control.wait(0.0, calls)
    assert control.wait(1.0, calls) == 0
    assert control.limit == 101


def test_calls_below_the_limit_keep_a_distance_only_while_it_is_in_doubt():
    known, doubted = ConcurrencyController(4), ConcurrencyController(4, in_doubt=True)
    for control in (known, doubted):
        control.sent(0.0, send_log(0, latency=0.4))
    assert known.wait(0.0, send_log(1, latency=0.4)) == 0
    assert doubted.wait(0.0, send_log(1, latency=0.4)) == pytest.approx(0.09)


def test_who_wakes_up_late_makes_it_good_unless_it_was_very_late():
    control, calls = ConcurrencyController(4, in_doubt=True), send_log(1, latency=0.4)  # a distance of 0.09 s
    control.sent(0.0, calls)
    control.sent(0.14, calls)
    assert control.wait(0.14, calls) == pytest.approx(0.045)  # half a distance at the most
    control.sent(0.20, calls)
    assert control.wait(0.20, calls) == pytest.approx(0.075)
    control.sent(5.0, calls)
    assert control.wait(5.0, calls) == pytest.approx(0.09)


def test_a_rejection_lowers_the_limit_to_what_was_in_flight():
    control = ConcurrencyController(10, in_doubt=True)
    control.rejected(7, 0.1)
    assert control.limit == 7
    control.rejected(9, 0.1)
    assert control.limit == 7
    control.rejected(0, 0.1)
    assert control.limit == 1


def test_a_number_at_which_more_was_accepted_before_is_no_limit():
    control = ConcurrencyController(20, in_doubt=True)
    control.accepted(10)
    assert control.contradicts(8)
    assert not control.contradicts(9)
    control.rejected(9, 0.1)
    assert not control.contradicts(8)  # that was before


class TestYielding:
    def shared(self):
        """A limit of 20 that somebody else has just taken a place of, and when."""
        control = ConcurrencyController(21)
        control.accepted(21)
        control.rejected(20, 0.1)
        return control, 0.0

    def test_after_such_a_rejection_some_are_left_free_until_the_next_probe(self):
        control, now = self.shared()
        assert control.is_yielding
        assert 15 <= control.limit < 20
        assert first_probe(control, now) - now == pytest.approx(1.0, abs=0.02)
        assert control.limit == 20

    def test_where_nobody_else_shows_that_is_rare(self):
        control, now, yielded = ConcurrencyController(20), 0.0, []
        for number in range(1, 100):
            now = first_probe(control, now)
            control.rejected(20, 0.1)
            if control.is_yielding:
                yielded.append(number)
                now = first_probe(control, now)
                control.accepted(20)
        assert yielded
        assert len(yielded) < 10

    def test_when_nobody_takes_them_it_goes_on_as_before(self):
        control, now = self.shared()
        first_probe(control, first_probe(control, now))
        assert not control.is_yielding
        assert control.limit == 21

    def test_so_it_is_when_that_many_are_answered_and_no_more_are_wanted(self):
        control, _ = self.shared()
        control.accepted(20)
        assert not control.is_yielding
        assert control.limit == 20

    def test_a_rejection_with_fewer_than_before_may_only_show_that_somebody_took_them(self):
        control, now = self.shared()
        kept_in_flight = control.limit
        first_probe(control, now)
        assert [control.used_by_others(in_flight) for in_flight in (kept_in_flight - 1, kept_in_flight, 19, 20)] == [
            False,
            True,
            True,
            False,
        ]
        control.rejected(19, 0.1)
        assert control.limit < 19

    @pytest.mark.parametrize(("in_flight", "is_yielding"), [(20, False), (19, True)])
    def test_a_place_that_is_lost_is_a_sign_of_somebody_else(self, in_flight, is_yielding):
        control, now = self.shared()
        for _ in range(4):  # so that it would not be done again at the next rejection
            now = first_probe(control, first_probe(control, now))
            control.rejected(control.confirmed, 0.1)
        assert not control.is_yielding
        control.accepted(20)
        control.rejected(in_flight, 0.1)
        assert control.is_yielding is is_yielding

    def test_a_probe_that_is_rejected_is_none(self):
        control, now = self.shared()
        for _ in range(4):
            now = first_probe(control, first_probe(control, now))
            control.accepted(21)
            control.rejected(20, 0.1)
        assert not control.is_yielding

    def test_with_calls_that_come_now_and_then_it_is_over_by_the_clock(self):
        control, now = self.shared()
        kept_in_flight = control.limit
        assert control.wait(now, send_log(kept_in_flight)) > 0
        assert control.wait(now + 60.0, send_log(kept_in_flight)) == 0
        assert control.limit == 20

    def test_it_is_taken_back_at_a_distance_at_first_and_then_at_once(self):
        control, now = self.shared()
        calls = send_log(control.limit + 1, latency=0.4)
        now = first_probe(control, now)
        control.sent(now, calls)
        assert control.wait(now, calls) == pytest.approx(0.9 * 0.4 / 20)
        control.sent(now + 2.0, calls)
        assert control.wait(now + 2.0, calls) == 0

    def test_as_long_as_somebody_takes_them_the_next_follow_at_once(self):
        control, now = self.shared()
        moments = []
        for max_accepted in (19, 18, 17):
            back = first_probe(control, now)
            moments.append(back - now)
            control.rejected(max_accepted, 0.1)
            assert control.is_yielding
            now = back
        assert moments == pytest.approx([1.0, 1.0, 1.0], abs=0.02)

    def test_in_doubt_nothing_is_left_to_others(self):
        control = ConcurrencyController(20, in_doubt=True)
        control.rejected(20, 0.1)
        assert control.limit == 20
        assert not control.is_yielding


def yielded(fair_share, rejections, in_flight=100):
    """After which of so many rejections some are given up; none of them shows that there is somebody else."""
    return [number for number in range(1, rejections + 1) if fair_share.rejected(in_flight)]


RARELY = yielded(FairShareYield(), 100)[0]  # rejections, from one yield to the next


class TestFairShareYield:
    def test_where_nobody_else_shows_it_is_rare_so_that_it_costs_next_to_nothing(self):
        assert RARELY >= 10
        assert yielded(FairShareYield(), 4 * RARELY) == [RARELY, 2 * RARELY, 3 * RARELY, 4 * RARELY]

    def test_a_tenth_or_more_is_given_up_until_the_next_rejection(self):
        fair_share = FairShareYield()
        yielded(fair_share, RARELY - 1)
        given = fair_share.rejected(100)
        assert 10 <= given <= 25
        assert (fair_share.in_flight_before, fair_share.kept_in_flight) == (100, 100 - given)
        fair_share.rejected(100)
        assert (fair_share.in_flight_before, fair_share.kept_in_flight) == (0, 0)

    def test_or_until_it_is_over(self):
        fair_share = FairShareYield()
        yielded(fair_share, RARELY)
        fair_share.end()
        assert (fair_share.in_flight_before, fair_share.kept_in_flight) == (0, 0)

    @pytest.mark.parametrize("in_flight", range(5))
    def test_who_has_few_gives_up_none(self, in_flight):
        fair_share = FairShareYield()
        assert fair_share.rejected(in_flight, by_others=True) == 0
        assert fair_share.in_flight_before == 0

    def test_rejections_after_which_nothing_can_be_given_up_make_it_no_rarer(self):
        fair_share = FairShareYield()
        yielded(fair_share, 50, in_flight=4)
        assert fair_share.rejected(100) > 0

    def test_at_once_when_somebody_else_takes_places(self):
        fair_share = FairShareYield()
        yielded(fair_share, RARELY // 2)
        assert all(fair_share.rejected(100, by_others=True) for _ in range(3))

    def test_afterwards_less_and_less_often_when_nobody_does(self):
        fair_share = FairShareYield()
        fair_share.rejected(100, by_others=True)
        numbers = [0, *yielded(fair_share, 6 * RARELY)]
        gaps = [after - before for before, after in zip(numbers, numbers[1:])]
        assert gaps[:3] == [2, 4, 8]
        assert gaps[-1] == RARELY
        assert gaps == sorted(gaps)
