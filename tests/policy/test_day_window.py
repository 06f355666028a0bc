"""Limits per day: no 24 hours hold more, and what is left can be used."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._policy.day_window import DAY_SECONDS, SLOT_LIFE_SECONDS, SLOT_SECONDS, DayLimits, DayWindow
from chatpool._policy.rate_limiter import RateLimiter
from chatpool.config import Limits

MAX_SLOTS = int(DAY_SECONDS / SLOT_SECONDS) + 2


def sent_at(window, limits, now, tokens=0.0):
    """Send at the first moment from ``now`` on that the window allows; return it."""
    now = window.advance(now)
    now = window.advance(now + window.wait(limits, 1.0, tokens))
    if window.wait(limits, 1.0, tokens) > 0:  # the sum may be rounded to less than the moment: a worker asks again
        now = window.advance(math.nextafter(now, math.inf))
    assert window.wait(limits, 1.0, tokens) <= 0
    window.take(now, 1.0, tokens)
    return now


def most_in_a_day(sent):
    return max(sum(amount for at, amount in sent if start <= at < start + DAY_SECONDS) for start, _ in sent)


@given(
    gaps=st.lists(st.floats(0, 40_000), min_size=1, max_size=60),
    requests=st.integers(1, 12),
    tokens=st.integers(50, 400),
    amounts=st.lists(st.floats(0, 50), min_size=60, max_size=60),
)
def test_no_day_holds_more_and_none_waits_longer_than_it_must(gaps, requests, tokens, amounts):
    window, limits = DayWindow(), DayLimits(requests, tokens)
    now, sent = 1000.0, []
    for gap, amount in zip(gaps, amounts):
        asked_at = now + gap
        now = sent_at(window, limits, asked_at, amount)
        if now > asked_at:  # a slot and the lateness before, a day held the limit
            before = [each for each in sent if each[0] > now - SLOT_LIFE_SECONDS - 1e-6]
            full = len(before) + 1 > requests, sum(each[1] for each in before) + amount > tokens - 1e-6
            assert any(full)
        sent.append((now, amount))
    assert most_in_a_day([(at, 1) for at, _ in sent]) <= requests
    assert most_in_a_day(sent) <= tokens + 1e-6


def test_the_end_of_a_wait_may_be_rounded_to_less():
    window, limits = DayWindow(), DayLimits(requests=1)
    window.take(window.advance(1005.7779480780121), 1.0, 0.0)
    asked_at = window.advance(1028.7345346735456)
    now = window.advance(asked_at + window.wait(limits, 1.0, 0.0))
    assert 0 < window.wait(limits, 1.0, 0.0) <= math.ulp(now)
    window.advance(math.nextafter(now, math.inf))
    assert window.wait(limits, 1.0, 0.0) == 0


def test_all_of_it_may_be_sent_at_once_and_again_a_day_later():
    window, limits = DayWindow(), DayLimits(requests=100)
    assert [sent_at(window, limits, 5.0) for _ in range(100)] == [5.0] * 100
    assert sent_at(window, limits, 6.0) == pytest.approx(5.0 + SLOT_LIFE_SECONDS)
    assert [sent_at(window, limits, 5.0 + SLOT_LIFE_SECONDS) for _ in range(99)] == [5.0 + SLOT_LIFE_SECONDS] * 99


def test_a_daily_run_at_the_same_time_waits_for_minutes_only():
    window, limits = DayWindow(), DayLimits(requests=100)
    for number in range(100):
        assert sent_at(window, limits, 100.0 * number) == 100.0 * number
    now = DAY_SECONDS
    for _ in range(100):
        asked_at, now = now, sent_at(window, limits, now)
        assert now - asked_at <= SLOT_SECONDS + 1


def test_a_clock_that_is_set_back_gives_nothing_away():
    window, limits = DayWindow(), DayLimits(requests=2)
    sent_at(window, limits, 500_000.0)
    sent_at(window, limits, 500_010.0)
    window.advance(100.0)
    assert window.wait(limits, 1.0, 0.0) == pytest.approx(SLOT_LIFE_SECONDS - 10.0, abs=1.0)
    assert window.used() == (2.0, 0.0)


@pytest.mark.slow
def test_however_much_is_sent_the_count_stays_small():
    window, limits = DayWindow(), DayLimits(requests=1e9)
    for number in range(20_000):
        sent_at(window, limits, 17.0 * number)
        assert len(window.slots) <= MAX_SLOTS


def test_what_was_not_used_is_given_back_to_its_own_slot():
    window, limits = DayWindow(), DayLimits(tokens=1000)
    first = sent_at(window, limits, 0.0, 600)
    sent_at(window, limits, 1000.0, 300)
    window.correct(first, 0.0, -500.0)
    assert window.used() == (2.0, 400.0)
    assert sent_at(window, limits, 1000.0, 600) == 1000.0
    window.advance(SLOT_LIFE_SECONDS)
    assert window.used() == (2.0, 900.0)  # those of the first are a day old
    window.correct(first, -1.0, -500.0)  # long forgotten
    assert window.used() == (2.0, 900.0)


def test_what_was_used_beyond_the_estimate_counts_from_now_on():
    window, limits = DayWindow(), DayLimits(tokens=1000)
    first = sent_at(window, limits, 0.0, 100)
    window.advance(40_000.0)
    window.correct(first, 0.0, 850.0)
    assert window.wait(limits, 1.0, 200.0) > SLOT_LIFE_SECONDS - 1  # 100 of the first would be back before


class TestRateLimiter:
    def test_minute_and_day_go_together(self):
        limiter = RateLimiter(Limits(requests_per_minute=600, requests_per_day=12))
        now = 0.0
        for _ in range(12):
            assert limiter.day_wait(now, 0) == 0
            now += limiter.wait(now, 0)
            limiter.sent(now, 0)
        assert limiter.wait(now + 1, 0) == 0
        assert limiter.day_wait(now, 0) == pytest.approx(SLOT_LIFE_SECONDS - now)
        assert limiter.day_left(now).known == (0.0, None)

    def test_a_refused_call_counts_as_a_request_and_gives_its_tokens_back(self):
        limiter = RateLimiter(Limits(tokens_per_day=1000, requests_per_day=5))
        limiter.sent(0.0, 900)
        limiter.corrected(0.0, 1.0, 900, 0.0)
        assert limiter.day_left(1.0).known == (4.0, 1000.0)

    def test_an_answer_that_claims_too_much_counts_as_a_days_worth(self):
        limiter = RateLimiter(Limits(tokens_per_day=1000))
        limiter.sent(0.0, 10)
        limiter.corrected(0.0, 1.0, 10, 1e15)
        assert limiter.day_wait(1.0, 1) == pytest.approx(SLOT_LIFE_SECONDS - 1)

    def test_a_day_that_is_shared_is_counted_elsewhere(self):
        limiter = RateLimiter(Limits(requests_per_day=1, scope="team"))
        limiter.sent(0.0, 0)
        assert (limiter.day_wait(0.0, 0), limiter.day_left(0.0)) == (0.0, None)

    def test_what_no_day_has_room_for_is_refused_for_good(self):
        reason = RateLimiter(Limits(tokens_per_day=1000)).too_large(1001)
        assert "tokens_per_day=1,000" in reason
        assert RateLimiter(Limits(tokens_per_day=1000)).too_large(1000) is None
