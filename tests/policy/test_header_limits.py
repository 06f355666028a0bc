"""Limits that a server reports in its headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool._policy.header_limits import HeaderLimit, Overlap
from chatpool._values import StatedLimit


def limit_of(*statements, since=0):
    """Statements as (limit, remaining, reset, number of the attempt, sent at); ``since`` was sent after the last."""
    limit = HeaderLimit()
    for total, remaining, reset, number, sent_at in statements:
        limit.reported(StatedLimit(total, remaining, reset), number, sent_at, Overlap(since), sent_at)
    return limit


def test_what_is_left_may_be_sent_at_once():
    assert limit_of((50, 40, 0.2, 9, 0.0)).wait(0.0, 1) == 0
    assert limit_of((50, 40, 0.2, 9, 0.0), since=38).wait(0.0, 1) == 0
    assert limit_of((50, 40, 0.2, 9, 0.0), since=40).wait(0.0, 1) > 0


def test_but_what_flows_back_within_some_milliseconds_for_calls_that_arrive_too_soon():
    assert limit_of((50, 40, 0.2, 9, 0.0), since=39).wait(0.0, 1) == pytest.approx(1 / 50 / 0.99)
    assert limit_of((10, 5, 0.1, 5, 0.0)).wait(0.0, 4.5) == 0  # of small limits no more than a twentieth
    assert limit_of((100, 60, 40.0, 39, 0.0), (100, 40, 35.0, 59, 5.0)).wait(5.0, 40) == 0  # given anew at once


class TestRate:
    def test_it_is_what_was_used_by_the_time_until_all_is_back(self):
        assert limit_of((50, 40, 0.2, 9, 0.0)).rate == pytest.approx(50)
        assert limit_of((200, 199, 432.0, 0, 0.0)).rate == pytest.approx(1 / 432)  # a limit per day

    def test_without_a_reset_the_limit_is_one_per_minute(self):
        assert limit_of((600, 599, None, 0, 0.0)).rate == pytest.approx(10)

    def test_what_was_a_guess_counts_for_nothing_against_a_measurement(self):
        assert limit_of((50, 50, None, 0, 0.0), (50, 40, 0.2, 9, 0.1)).rate == pytest.approx(50)

    def test_what_is_rounded_to_a_unit_and_a_millisecond_does_not_pass_for_a_higher_one(self):
        known = (20, 10, 0.2, 9, 0.0)
        assert limit_of(known, (20, 19, 0.001, 10, 1.0)).rate == pytest.approx(50)
        assert limit_of(known, (20, 19, 0.003, 10, 1.0)).rate == pytest.approx(50)

    def test_nor_what_is_rounded_up_to_a_second_for_a_lower_one(self):
        assert limit_of((600, 580, 2.0, 19, 0.0), (600, 590, 2.0, 29, 1.0)).rate == pytest.approx(10)

    def test_it_follows_a_server_that_changes_it(self):
        known = (100, 50, 1.25, 49, 0.0)
        assert limit_of(known, (100, 50, 2.513, 99, 5.0)).rate == pytest.approx(50 / 2.512)
        assert limit_of(known, (100, 50, 0.513, 99, 5.0)).rate == pytest.approx(49 / 0.514)

    @given(
        st.floats(0.5, 500),
        st.integers(10, 10_000),
        st.lists(st.floats(0.01, 0.99), min_size=2, max_size=20),
    )
    def test_the_more_is_said_the_nearer_it_comes_to_the_servers(self, rate, total, parts):
        limit = HeaderLimit()
        for number, part in enumerate(parts):
            used = part * total
            limit.reported(StatedLimit(total, int(total - used), round(used / rate, 3)), number, 0.0, Overlap(), 0.0)
        most = max(parts) * total
        assert rate * (1 - 0.001 * rate / most - 1 / most) <= limit.rate * 1.01
        if most > 10 and most / rate > 0.1:
            assert limit.rate <= 1.15 * rate


def test_with_nothing_left_a_call_waits_for_what_flows_back():
    limit = limit_of((50, 0, 1.0, 49, 0.0))
    assert limit.wait(0.0, 1) == pytest.approx(2 / 50 / 0.99)
    assert limit.wait(0.5, 1) == 0
    assert limit.wait(0.5, 30) > 0


class TestWhatIsSent:
    def test_after_the_statement_is_taken_off(self):
        limit = limit_of((50, 10, 0.8, 39, 0.0))
        for _ in range(9):
            assert limit.wait(0.0, 1) == 0
            limit.sent(0.0, 1)
        assert limit.wait(0.0, 1) > 0

    def test_flows_back_as_well_when_no_other_statement_follows(self):
        """Of rejections and broken connections none may; what they used is not missing for ever."""
        limit = limit_of((20, 17, 0.059, 5, 0.0))
        for _ in range(19):
            limit.sent(1.0, 1)
        assert limit.wait(1.0, 1) > 0
        assert limit.wait(2.0, 1) == 0
        assert limit.wait(2.0, 19) == 0

    @given(
        st.tuples(st.integers(1, 1000), st.floats(0, 1), st.floats(0.001, 1e6), st.booleans()),
        st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=60),
    )
    def test_nothing_makes_a_call_wait_for_more_than_ten_minutes(self, statement, sends):
        total, left, reset, is_fixed_window = statement
        limit = limit_of((total, left * total, reset, 0, 0.0))
        limit.is_fixed_window = is_fixed_window
        now = 0.0
        for later, amount in sends:
            now += later
            limit.sent(now, amount)
        wait = limit.wait(now, 1)
        assert wait <= 600 + 1e-9
        assert limit.wait(now + wait + 1e-6, 1) == 0


class TestSlowAnswers:
    """What came back while the limit was full is lost, however late the answer tells of it."""

    @pytest.mark.parametrize("known_before", [True, False])
    def test_a_burst_at_their_end_is_not_given_back(self, known_before):
        limit = limit_of((20, 19, 0.5, 0, 0.0)) if known_before else HeaderLimit()
        for _ in range(18):
            limit.sent(9.9, 1)
        limit.reported(StatedLimit(20, 18, 1.0), 1, 0.1, Overlap(since=18), 10.0)
        assert limit.wait(10.0, 3) > 0

    def test_what_came_back_since_is(self):
        limit = limit_of((20, 19, 0.5, 0, 0.0))
        for _ in range(18):
            limit.sent(0.2, 1)
        limit.reported(StatedLimit(20, 18, 1.0), 1, 0.1, Overlap(since=18), 10.0)
        assert limit.wait(10.0, 18) == 0


class TestRequestsThatOvertakeEachOther:
    """A statement that does not count what was sent before it, or counts what was sent after it, changes nothing."""

    def limit_after(self, around, remaining):
        limit = limit_of((20, 19, 0.02, 0, 0.0))
        for _ in range(10):
            limit.sent(1.0, 1)
        limit.reported(StatedLimit(20, remaining, None), 10, 1.0, around, 1.0)
        return limit

    def test_what_was_sent_shortly_before_may_not_be_counted_yet(self):
        assert self.limit_after(Overlap(overtaken=9), 19).wait(1.0, 9) == 0
        assert self.limit_after(Overlap(overtaken=9), 19).wait(1.0, 11) > 0

    def test_of_the_first_statement_what_was_sent_shortly_before_is_taken_off(self):
        """Of ten that were sent at once the last may arrive first: then nine more are on their way."""
        limit = HeaderLimit()
        limit.reported(StatedLimit(20, 19, 0.02), 9, 1.0, Overlap(overtaken=9), 1.0)
        assert limit.wait(1.0, 9) == 0
        assert limit.wait(1.0, 11) > 0

    def test_what_was_sent_shortly_after_may_be_counted_already(self):
        assert self.limit_after(Overlap(since=9, overtaking=9), 10).wait(1.0, 9) == 0
        assert self.limit_after(Overlap(since=9, overtaking=9), 10).wait(1.0, 11) > 0

    def test_what_the_server_says_beyond_that_holds(self):
        assert self.limit_after(Overlap(overtaken=1), 19).wait(1.0, 16) == 0
        assert self.limit_after(Overlap(), 2).wait(1.0, 3) > 0


def test_an_answer_to_an_earlier_attempt_says_nothing_new():
    limit = limit_of((50, 0, 1.0, 49, 0.0), (50, 30, 0.4, 20, 0.0))
    assert limit.wait(0.0, 1) > 0


def test_a_limit_that_is_a_fixed_window_is_told_by_its_reset_that_stands_still():
    flowing = limit_of((100, 60, 40.0, 39, 0.0), (100, 40, 60.0, 59, 5.0))
    fixed = limit_of((100, 60, 40.0, 39, 0.0), (100, 40, 35.0, 59, 5.0))
    assert (flowing.is_fixed_window, fixed.is_fixed_window) == (False, True)


def test_nothing_is_told_by_two_statements_with_a_reset_between_them():
    """The reset of the next window is a whole window later, and that is no flow."""
    limit = limit_of((100, 60, 10.0, 39, 0.0), (100, 40, 8.0, 59, 2.0), (100, 70, 9.9, 89, 10.1))
    assert limit.is_fixed_window


def test_of_a_fixed_window_no_more_than_all_is_sent_before_the_server_says_more():
    limit = limit_of((100, 60, 40.0, 39, 0.0), (100, 0, 35.0, 99, 5.0))
    for _ in range(100):
        assert limit.wait(41.0, 1) == 0
        limit.sent(41.0, 1)
    assert limit.wait(41.0, 1) == 60
    limit.reported(StatedLimit(100, 50, 59.0), 200, 41.0, Overlap(), 42.0)
    assert limit.wait(42.0, 50) == 0
    assert limit.wait(42.0, 51) == pytest.approx(58.0)


def test_of_a_fixed_window_nothing_comes_back_before():
    limit = limit_of((100, 60, 40.0, 39, 0.0), (100, 0, 35.0, 99, 5.0))
    assert limit.wait(10.0, 1) == pytest.approx(30.0)
    assert limit.wait(40.0, 1) == 0


def test_a_request_above_the_limit_waits_for_all_of_it_and_not_for_ever():
    assert 0 < limit_of((100, 50, 30.0, 0, 0.0), since=1).wait(0.0, 500) < 60


def test_a_limit_of_some_an_hour_is_waited_for():
    limit = limit_of((30, 0, 3600.0, 29, 0.0))
    assert 120 <= limit.wait(0.0, 1) <= 122


def test_a_limit_of_a_few_a_day_is_left_to_the_server_to_speak_of():
    limit = limit_of((20, 0, 86_400.0, 19, 0.0))
    assert limit.wait(0.0, 1) == 600
    assert limit.wait(600.0, 1) == 0
    limit.sent(600.0, 1)
    assert limit.wait(600.0, 1) == 600


def test_a_limit_of_nothing_is_no_limit():
    assert limit_of((0, 0, 1.0, 0, 0.0)).wait(0.0, 1) == 0
