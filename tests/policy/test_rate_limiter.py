"""Configured limits per minute: no minute ever exceeds them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._policy.rate_limiter import LeakyBucket, RateLimiter, SlidingWindow
from chatpool.config import Limits


def test_requests_are_spread_over_the_minute():
    limits = RateLimiter(Limits(requests_per_minute=600))
    for _ in range(10):
        assert limits.wait(0.0, 0) == 0
        limits.sent(0.0, 0)
    assert limits.wait(0.0, 0) == pytest.approx(60 / 591)


def test_the_burst_is_so_many_seconds_worth():
    limits = RateLimiter(Limits(requests_per_minute=600, burst=3))
    sent = 0
    while limits.wait(0.0, 0) == 0:
        limits.sent(0.0, 0)
        sent += 1
    assert sent == 30


def test_both_resources_are_taken_in_one_step_and_the_scarcer_one_decides():
    limits = RateLimiter(Limits(requests_per_minute=600, tokens_per_minute=60_000))
    limits.sent(0.0, 1000)
    assert limits.wait(0.0, 0) == 0
    assert limits.wait(0.0, 1000) == pytest.approx(1000 / (59_000 / 60))


def test_part_of_a_request_is_none():
    limits = RateLimiter(Limits(requests_per_minute=2.9))
    times, now = [], 0.0
    for _ in range(5):
        now += limits.wait(now, 0)
        limits.sent(now, 0)
        times.append(now)
    assert times == pytest.approx([0, 30, 60, 90, 120])


def test_what_was_not_used_is_given_back():
    limits = RateLimiter(Limits(tokens_per_minute=60_000))
    limits.sent(0.0, 30_000)
    assert limits.wait(0.0, 500) > 20
    limits.corrected(0.0, 0.5, 30_000, 600)
    assert limits.wait(0.5, 500) < 1
    assert limits.wait(5.0, 59_000) == 0


def test_what_was_used_beyond_the_estimate_is_taken_too():
    limits = RateLimiter(Limits(tokens_per_minute=60_000))
    limits.sent(0.0, 100)
    limits.corrected(0.0, 0.5, 100, 30_000)
    assert limits.wait(0.5, 500) > 20


def test_a_request_that_was_rejected_still_counts_as_a_request():
    limits = RateLimiter(Limits(requests_per_minute=60, tokens_per_minute=60_000))
    limits.sent(0.0, 1000)
    limits.corrected(0.0, 0.1, 1000, 0.0)
    assert limits.wait(0.1, 1000) == pytest.approx(0.9)


def test_a_request_above_the_limit_is_too_large_and_the_reason_says_what_to_do():
    limits = RateLimiter(Limits(tokens_per_minute=10_000))
    assert limits.too_large(10_000) is None
    assert "lower its max_tokens" in limits.too_large(10_001)
    assert RateLimiter(Limits(requests_per_minute=1)).too_large(10**9) is None


class Calls:
    """Calls that are sent as soon as they may be, on a clock that only goes forward; their answers come whenever.

    Attributes:
        sent: ``[time, tokens as far as is known, estimate, whether the answer has come]`` of each.
    """

    def __init__(self, limits):
        self.limits = limits
        self.now = 0.0
        self.sent = []

    def send(self, tokens):
        while self.limits.wait(self.now, tokens) > 0:
            self.now += max(1e-6, self.limits.wait(self.now, tokens))
        self.limits.sent(self.now, tokens)
        self.sent.append([self.now, tokens, tokens, False])

    def answer(self, which, used):
        call = self.sent[which % len(self.sent)]
        if not call[3]:
            self.limits.corrected(call[0], self.now, call[2], used)
            call[1], call[3] = used, True

    def known_in_last_minute(self, limit):
        """One call counts for a minute's worth at most: after a minute none of it is in the window any more."""
        return sum(min(tokens, limit) for time, tokens, _, _ in self.sent if time > self.now - 60 + 1e-6)


steps = st.lists(
    st.tuples(
        st.sampled_from(["send"] * 4 + ["answer", "refusal", "sleep"]),
        st.floats(0, 20),  # seconds that pass before it
        st.floats(0, 1),  # of the limit
        st.integers(0, 100),  # which call is answered
    ),
    max_size=60,
)


def play(calls, played, limit, most):
    """Yields after each send.  What a call has used is up to ``most`` times its estimate."""
    for what, seconds, share, which in played:
        calls.now += 1e3 * seconds if what == "sleep" else seconds  # a laptop that was closed
        if what == "send":
            calls.send(round(share * share * limit))
            yield
        elif what in ("answer", "refusal") and calls.sent:
            estimate = calls.sent[which % len(calls.sent)][2]
            calls.answer(which, most * share * estimate if what == "answer" else 0.0)


def most_in_a_minute(taken):
    """The most that was taken in any 60 seconds."""
    return max(
        (sum(amount for time, amount in taken if start <= time < start + 60 - 1e-6) for start, _ in taken), default=0
    )


@given(steps, st.integers(1, 100), st.integers(50, 5000), st.floats(0.05, 30))
def test_no_minute_ever_exceeds_the_limits_whatever_is_answered_and_rejected(played, requests, tokens, burst):
    limits = Limits(requests_per_minute=requests, tokens_per_minute=tokens, burst=burst)
    calls = Calls(RateLimiter(limits))
    for _ in play(calls, played, tokens, most=1.0):
        pass
    assert most_in_a_minute([(time, 1) for time, *_ in calls.sent]) <= requests
    assert most_in_a_minute([(time, used) for time, used, *_ in calls.sent]) <= tokens * (1 + 1e-9)


@given(steps, st.integers(50, 5000), st.floats(0.05, 30))
def test_nothing_is_sent_that_exceeds_the_limit_by_what_is_known_of_calls_that_took_more(played, tokens, burst):
    calls = Calls(RateLimiter(Limits(tokens_per_minute=tokens, burst=burst)))
    for _ in play(calls, played, tokens, most=3.0):
        assert calls.known_in_last_minute(tokens) <= tokens * (1 + 1e-9)


def left(limits, now):
    """How much can be sent at once, ten tokens at a time."""
    taken = 0
    while limits.wait(now, 10) == 0:
        limits.sent(now, 10)
        taken += 10
    return taken


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 30)), min_size=1, max_size=30),
    st.floats(0.1, 10),
)
def test_refunds_never_create_tokens(calls, burst):
    """However late calls are corrected, afterwards there is no more than there would be without them."""
    limits, fresh = (RateLimiter(Limits(tokens_per_minute=6000, burst=burst)) for _ in range(2))
    now = 0.0
    for share, returned, seconds in calls:
        limits.sent(now, 6000 * share)
        now += seconds
        limits.corrected(now - seconds, now, 6000 * share, 6000 * share * returned)
    assert left(limits, now) <= left(fresh, now)


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=10))
def test_what_a_call_has_used_is_not_given_back(shares):
    limits, fresh = (RateLimiter(Limits(tokens_per_minute=6000, burst=10)) for _ in range(2))
    for share in shares:
        limits.sent(0.0, 1000)
        limits.corrected(0.0, 0.0, 1000, 1000 * share)
    assert left(limits, 0.0) <= max(0.0, left(fresh, 0.0) - 1000 * sum(shares)) + 10


def test_no_answer_counts_for_more_than_a_minute():
    limits = RateLimiter(Limits(tokens_per_minute=60_000))
    limits.sent(0.0, 100)
    limits.corrected(0.0, 0.5, 100, 10.0**9)
    assert 50 < limits.wait(0.5, 500) <= 61


def test_however_much_many_answers_at_once_have_used_it_is_made_up_for_within_a_minute():
    limits = RateLimiter(Limits(tokens_per_minute=60_000))
    for _ in range(30):
        limits.sent(0.0, 100)
    for _ in range(30):
        limits.corrected(0.0, 1.0, 100, 10**9)
    assert limits.wait(1.0, 100) <= 62


def take_all(bucket, amounts, start=0.0):
    """Take each as soon as it may be; returns (time, amount) pairs."""
    now, taken = start, []
    for amount in amounts:
        now += bucket.wait(now, amount)
        bucket.take(now, amount)
        taken.append((now, amount))
    return taken


class TestLeakyBucket:
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


class TestSlidingWindow:
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
