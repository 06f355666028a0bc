"""Rate controller: how its rate rises and falls."""

from __future__ import annotations

import pytest

from chatpool._policy.adaptive.rate import RateController
from chatpool._policy.adaptive.send_log import Rejection

PLENTY = 10_000


def control(rate=100.0, now=0.0):
    return RateController(rate, last_sent=now, now=now)


def rejection(at, accepted, *, accept_rate=PLENTY, hint=0.01):
    return Rejection(sent_at=at, now=at, in_flight=0, accepted=accepted, accept_rate=accept_rate, hint=hint)


def reject(rate, at, accepted, *, accept_rate=PLENTY, hint=0.01, pause=None):
    rate.rejected(
        rejection(at, accepted, accept_rate=accept_rate, hint=hint),
        hint if pause is None else pause,
        0.01,
    )


def grow(rate, start, end, *, mean=0.0, send_rate=PLENTY, rejection_latency=0.01):
    now = start
    while now < end:
        now += 0.02
        rate.grow(now, send_rate, mean, rejection_latency)


class TestSending:
    def test_sends_are_spread_evenly(self):
        rate = control(10)
        times = [0.1]
        for _ in range(5):
            rate.sent(times[-1])
            times.append(times[-1] + rate.wait(times[-1]))
        assert times == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])

    def test_a_little_lateness_is_made_good_and_no_more(self):
        rate = control(10)
        rate.sent(0.103)
        assert rate.wait(0.103) == pytest.approx(0.097)
        rate.sent(5.0)
        assert rate.wait(5.0) == pytest.approx(0.095)

    def test_it_begins_as_far_from_the_last_send_as_the_rate_wants(self):
        assert RateController(10, last_sent=3.0, now=3.05).wait(3.05) == pytest.approx(0.05)

    def test_nothing_is_sent_in_the_pause(self):
        rate = control(100)
        reject(rate, 1.0, 50, hint=2.0)
        assert rate.wait(1.0) == pytest.approx(2.0)


class TestGrowing:
    def test_before_a_rejection_has_shown_the_rate_it_is_searched_for_fast(self):
        rate = control(10)
        grow(rate, 0, 1)
        assert 60 < rate.rate < 80

    def test_after_one_it_grows_slowly_and_then_faster(self):
        rate = control(10)
        reject(rate, 0, 0)
        first = rate.rate
        grow(rate, 0, 1)
        assert 1.1 < rate.rate / first < 1.2
        second = rate.rate
        grow(rate, 1, 3)
        assert rate.rate / second > 1.5

    def test_a_slow_sender_grows_by_more_than_a_fast_one_so_that_two_on_a_quota_meet(self):
        slow, fast = control(5), control(80)
        for rate in (slow, fast):
            reject(rate, 0, 0)
        before = slow.rate, fast.rate
        for rate in (slow, fast):
            grow(rate, 0, 2)
        assert slow.rate / before[0] > 1.5 > 1.25 > fast.rate / before[1]

    def test_it_grows_no_faster_than_rejections_come_back(self):
        quick, slow = control(10), control(10)
        for rate in (quick, slow):
            reject(rate, 0, 0)
        grow(quick, 0, 3)
        grow(slow, 0, 3, rejection_latency=1.5)
        assert quick.rate > 1.15 * slow.rate

    def test_it_does_not_grow_beyond_twice_what_is_sent(self):
        rate = control(10)
        grow(rate, 0, 60, send_rate=8)
        assert rate.rate < 21

    def test_it_comes_back_fast_to_what_was_accepted_for_long(self):
        rate = control(100)
        reject(rate, 0, 0)
        rate.rate = 2.0
        grow(rate, 0, 3, mean=50)
        assert rate.rate > 45

    def test_after_a_long_pause_it_waits_ten_times_as_long(self):
        rate = control(10)
        reject(rate, 0, 20, hint=1.0)
        before = rate.rate
        grow(rate, 0, 9.9)
        assert rate.rate == before
        grow(rate, 9.9, 16)
        assert rate.rate > before

    def test_hours_without_a_look_overflow_nothing(self):
        rate = control(10)
        reject(rate, 0, 0)
        rate.grow(86_400.0, PLENTY, 0.0, 0.01)
        assert rate.rate < 20


class TestBeingRejected:
    def test_it_is_cut_by_a_tenth(self):
        rate = control(100)
        reject(rate, 1, 100)
        assert rate.rate == pytest.approx(90)

    def test_it_is_cut_to_what_was_accepted_in_the_last_second(self):
        rate = control(100)
        reject(rate, 1, 100, accept_rate=59)
        assert rate.rate == pytest.approx(60)

    def test_a_second_with_a_pause_in_it_shows_no_rate(self):
        rate = control(100)
        reject(rate, 0, 0, hint=0.2)
        before = rate.rate
        reject(rate, 0.5, 49, accept_rate=10, hint=0.2)
        assert rate.rate == pytest.approx(0.9 * before)

    def test_between_two_rejections_the_server_refilled_what_it_accepted_and_one(self):
        rate = control(100)
        reject(rate, 10, 100)
        reject(rate, 10.5, 130)
        assert rate.rate == pytest.approx(62)

    def test_rejections_too_close_together_show_no_rate(self):
        rate = control(100)
        reject(rate, 10, 100)
        reject(rate, 10.001, 100)
        assert rate.rate == pytest.approx(90 * 0.9)

    def test_it_is_never_cut_below_half_at_once(self):
        rate = control(100)
        reject(rate, 10, 100)
        reject(rate, 10.5, 102)
        assert rate.rate == pytest.approx(45)

    def test_it_never_becomes_nothing(self):
        rate = control(1)
        for number in range(100):
            reject(rate, 10.0 * number, 0, accept_rate=0)
        assert rate.rate == pytest.approx(0.1)

    def test_a_pause_of_our_own_is_no_sign_of_a_server_that_paces_its_callers(self):
        rate = control(100)
        for at, accepted in ((1, 100), (2.1, 103)):
            reject(rate, at, accepted, hint=None, pause=1.0)
        assert rate.rate == pytest.approx(90 * 0.9)


class TestRejectionsByChance:
    def reject(self, rate, at, accepted, accept_rate=PLENTY):
        rate.rejected(rejection(at, accepted, accept_rate=accept_rate), 0.01, 0.01, random_share=0.2)

    def test_how_soon_they_follow_each_other_says_nothing_about_the_rate(self):
        rate = control(100)
        self.reject(rate, 10, 100)
        self.reject(rate, 10.1, 102)
        assert rate.rate == pytest.approx(90 * 0.9)

    def test_what_was_accepted_in_the_last_second_was_sent_at_a_higher_rate(self):
        rate = control(100)
        self.reject(rate, 10, 100, accept_rate=60)
        assert rate.rate == pytest.approx(60 / 0.8 + 1)
