"""Limits that a server states in its headers."""

from __future__ import annotations

import pytest

from chatpool.policy.learned import LearnedLimit, StatedLimit


def learned(*statements):
    """Statements as (limit, remaining, reset, number of the attempt, sent at)."""
    limit = LearnedLimit()
    for total, remaining, reset, number, sent_at in statements:
        limit.stated(StatedLimit(total, remaining, reset), number, number + 1, sent_at)
    return limit


def test_what_is_left_may_be_sent_at_once():
    limit = learned((50, 40, 0.2, 9, 0.0))
    assert limit.wait(0.0, 1, 10) == 0
    assert limit.wait(0.0, 1, 48) == 0
    assert limit.wait(0.0, 1, 50) > 0


def test_but_what_flows_back_within_some_milliseconds_for_calls_that_arrive_too_soon():
    assert learned((50, 40, 0.2, 9, 0.0)).wait(0.0, 1, 49) == pytest.approx(1 / 50 / 0.99)
    assert learned((10, 5, 0.1, 5, 0.0)).wait(0.0, 4.5, 6) == 0  # of small limits no more than a twentieth
    assert learned((100, 60, 40.0, 39, 0.0), (100, 40, 35.0, 59, 5.0)).wait(5.0, 40, 60) == 0  # given anew at once


def test_the_rate_is_what_was_used_by_the_time_until_all_is_back():
    assert learned((50, 40, 0.2, 9, 0.0)).rate == pytest.approx(50)
    assert learned((200, 199, 432.0, 0, 0.0)).rate == pytest.approx(1 / 432)  # a limit per day


def test_without_a_reset_the_limit_is_one_per_minute():
    assert learned((600, 599, None, 0, 0.0)).rate == pytest.approx(10)


def test_with_nothing_left_a_call_waits_for_what_flows_back():
    limit = learned((50, 0, 1.0, 49, 0.0))
    assert limit.wait(0.0, 1, 50) == pytest.approx(2 / 50 / 0.99)
    assert limit.wait(0.5, 1, 50) == 0
    assert limit.wait(0.5, 30, 50) > 0


def test_what_was_sent_after_the_statement_is_counted():
    limit = learned((50, 10, 0.8, 39, 0.0))
    assert limit.wait(0.0, 1, 48) == 0
    assert limit.wait(0.0, 1, 50) > 0


def test_an_answer_to_an_earlier_attempt_says_nothing_new():
    limit = learned((50, 0, 1.0, 49, 0.0), (50, 30, 0.4, 20, 0.0))
    assert limit.wait(0.0, 1, 50) > 0


def test_a_limit_that_is_given_anew_at_once_is_told_by_its_reset_that_stands_still():
    flowing = learned((100, 60, 40.0, 39, 0.0), (100, 40, 60.0, 59, 5.0))
    at_once = learned((100, 60, 40.0, 39, 0.0), (100, 40, 35.0, 59, 5.0))
    assert (flowing.at_once, at_once.at_once) == (False, True)


def test_of_one_that_is_given_anew_at_once_nothing_comes_back_before():
    limit = learned((100, 60, 40.0, 39, 0.0), (100, 0, 35.0, 99, 5.0))
    assert limit.wait(10.0, 1, 100) == pytest.approx(30.0)
    assert limit.wait(40.0, 1, 100) == 0


def test_a_request_above_the_limit_waits_for_all_of_it_and_not_for_ever():
    limit = learned((100, 50, 30.0, 0, 0.0))
    assert 0 < limit.wait(0.0, 500, 1) < 60


def test_a_limit_of_nothing_is_no_limit():
    assert learned((0, 0, 1.0, 0, 0.0)).wait(0.0, 1, 10) == 0
