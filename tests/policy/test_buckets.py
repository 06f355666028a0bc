"""Limits per minute: never exceeded, whatever is taken, given back or corrected, and however the clock jumps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._policy.rate_limiter import LeakyBucket, SlidingWindow


def take_all(bucket, amounts, start=0.0):
    """Take each as soon as it may be; returns (time, amount) pairs."""
    now, taken = start, []
    for amount in amounts:
        now += bucket.wait(now, amount)
        bucket.take(now, amount)
        taken.append((now, amount))
    return taken


def most_in_a_minute(taken):
    """The most that was taken in any 60 seconds."""
    return max(
        (sum(amount for time, amount in taken if start <= time < start + 60 - 1e-6) for start, _ in taken), default=0
    )


class TestBucket:
    def test_a_burst_goes_at_once_and_the_rest_evenly(self):
        times = [time for time, _ in take_all(LeakyBucket(600, 10, unit=1), [1] * 14)]
        assert times[:10] == [0] * 10
        gaps = [after - before for before, after in zip(times[9:], times[10:])]
        assert gaps == pytest.approx([60 / 591] * 4)

    def test_a_minute_holds_the_whole_limit(self):
        taken = take_all(LeakyBucket(600, 10, unit=1), [1] * 2000)
        assert most_in_a_minute(taken) == 600

    @pytest.mark.parametrize("limit", [1, 2, 3, 10])
    def test_a_small_limit_is_used_in_full(self, limit):
        taken = take_all(LeakyBucket(limit, limit / 60, unit=1), [1] * (3 * limit + 1))
        assert most_in_a_minute(taken) == limit
        assert taken[-1][0] == pytest.approx(180)

    def test_something_larger_than_the_burst_is_taken_from_an_empty_bucket_and_paid_for_afterwards(self):
        bucket = LeakyBucket(6000, 100)
        bucket.take(0.0, 1000)
        assert bucket.wait(0.0, 1) == pytest.approx(60 * 901 / 5900)

    def test_what_is_given_back_can_be_taken_again(self):
        bucket = LeakyBucket(6000, 100)
        bucket.take(0.0, 1000)
        bucket.give_back(0.0, 950)
        assert bucket.wait(0.0, 50) == 0

    def test_giving_back_never_makes_more_than_a_burst(self):
        bucket = LeakyBucket(6000, 100)
        bucket.take(0.0, 10)
        bucket.give_back(0.0, 10_000)
        bucket.take(0.0, 100)
        assert bucket.wait(0.0, 1) > 0

    @given(
        limit=st.integers(1, 100_000),
        burst=st.floats(0.01, 60),
        pauses=st.lists(st.floats(0, 40), min_size=1, max_size=60),
    )
    def test_no_minute_ever_holds_more_than_the_limit(self, limit, burst, pauses):
        bucket, now, taken = LeakyBucket(limit, limit / 60 * burst, unit=1), 0.0, []
        for pause in pauses:
            now += pause
            for _ in range(20):
                now += bucket.wait(now, 1)
                bucket.take(now, 1)
                taken.append((now, 1))
        assert most_in_a_minute(taken) <= limit * (1 + 1e-9)

    @given(jumps=st.lists(st.floats(-1000, 1000), max_size=40))
    def test_a_clock_that_jumps_back_gives_nothing_away(self, jumps):
        bucket, now, latest = LeakyBucket(600, 10, unit=1), 0.0, -math.inf
        for jump in jumps:
            now += jump
            taken = 0
            while bucket.wait(now, 1) == 0:
                bucket.take(now, 1)
                taken += 1
            assert taken <= 10
            if now < latest:
                assert taken == 0
            latest = max(latest, now)

    def test_what_never_was_a_limit_of_time_is_finite(self):
        for bucket in (LeakyBucket(1, 1, unit=1), LeakyBucket(600, 600)):
            bucket.take(0.0, 1000)
            assert 0 < bucket.wait(0.0, 1) < math.inf


class TestMinuteWindow:
    def test_what_fits_is_taken_at_once(self):
        window = SlidingWindow(100)
        window.take(0.0, 60)
        assert window.wait(0.5, 40) == 0

    def test_what_does_not_fit_waits_until_enough_is_a_minute_old(self):
        window = SlidingWindow(100)
        window.take(0.0, 60)
        window.take(10.0, 40)
        assert window.wait(20.0, 50) == pytest.approx(41.0)
        assert window.wait(20.0, 90) == pytest.approx(51.0)

    def test_what_was_taken_at_the_end_of_a_second_counts_for_a_whole_minute(self):
        window = SlidingWindow(100)
        window.take(0.9, 100)
        assert window.wait(60.8, 1) > 0
        assert window.wait(61.0, 100) == 0

    def test_a_correction_makes_room(self):
        window = SlidingWindow(100)
        window.take(0.0, 100)
        window.correct(0.0, -70)
        assert window.wait(1.0, 70) == 0
        assert window.wait(1.0, 71) > 0

    def test_a_correction_of_what_is_forgotten_changes_nothing(self):
        window = SlidingWindow(100)
        window.take(0.0, 100)
        window.take(100.0, 100)
        window.correct(0.0, -100)
        assert window.wait(101.0, 1) > 0

    def test_nothing_is_corrected_below_nothing(self):
        window = SlidingWindow(100)
        window.take(0.0, 10)
        window.correct(0.0, -1000)
        window.take(0.0, 100)
        assert window.wait(0.0, 1) > 0

    @given(
        calls=st.lists(
            st.tuples(st.floats(0, 30), st.floats(1, 500), st.floats(0, 1), st.floats(0, 20)), min_size=1, max_size=60
        )
    )
    def test_no_minute_holds_more_than_the_limit_of_what_was_used(self, calls):
        """Estimates may be too high, and are corrected when the answer comes, some seconds later."""
        window, bucket, now, used, answers = SlidingWindow(500), LeakyBucket(500, 500 / 60), 0.0, [], []
        for pause, estimate, share, latency in calls:
            now += pause
            for done in [answer for answer in answers if answer[0] <= now]:
                answers.remove(done)
                window.correct(done[1], done[2])
                bucket.give_back(now, -done[2])
            now += max(window.wait(now, estimate), bucket.wait(now, estimate))
            window.take(now, estimate)
            bucket.take(now, estimate)
            used.append((now, estimate * share))
            answers.append((now + latency, now, estimate * share - estimate))
        assert most_in_a_minute(used) <= 500 * (1 + 1e-9)
