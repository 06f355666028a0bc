"""Slow start, and the state without a limit."""

from __future__ import annotations

import math

import pytest

from chatpool._policy.adaptive.random_rejections import LoadTrial
from chatpool._policy.adaptive.send_log import Rejection, SendLog, SendRecord
from chatpool._policy.adaptive.slow_start import SlowStart, Unlimited


def sent_by(slow_start, end):
    """When a caller who always has something to send sends, until ``end``; nothing is answered meanwhile."""
    now, times = 0.0, []
    while now < end:
        wait = slow_start.wait(now, len(times))
        if wait > 0:
            now += wait
            continue
        slow_start.sent(now, len(times))
        times.append(now)
        if len(times) > 5000:
            break
    return times


def test_the_first_eight_go_at_once():
    assert sent_by(SlowStart(), 0.001) == [0.0] * 9  # and the first at the rate


def test_whoever_has_fewer_than_eight_in_flight_never_waits():
    slow_start = SlowStart()
    for call in range(1000):
        assert slow_start.wait(call / 1000, 7) == 0
        slow_start.sent(call / 1000, 7)


def test_sends_with_few_in_flight_put_off_none_that_come_later():
    slow_start = SlowStart()
    for call in range(100):
        slow_start.sent(call / 10_000, 1)
    assert slow_start.wait(0.01, 8) == 0


def per_tenth(times):
    return [sum(tenth / 10 <= time < (tenth + 1) / 10 for time in times[8:]) for tenth in range(5)]


def test_then_they_are_sent_steadily_for_a_while_and_at_a_rate_that_doubles_twenty_times_a_second():
    counts = per_tenth(sent_by(SlowStart(), 0.5))
    assert counts[:2] == pytest.approx([30, 30], abs=2)
    assert [count / before for before, count in zip(counts[2:], counts[3:])] == pytest.approx([4, 4], abs=0.5)
    assert counts[2] > 60


def test_the_first_answer_makes_it_double_at_once():
    slow_start = SlowStart()
    slow_start.answered = True
    counts = per_tenth(sent_by(slow_start, 0.3))
    assert counts[0] > 60
    assert counts[1] / counts[0] == pytest.approx(4, abs=0.5)


def test_a_hundred_workers_are_busy_within_a_third_of_a_second():
    assert sent_by(SlowStart(), 1)[99] < 0.33


def test_in_the_end_nothing_is_held_back():
    slow_start = SlowStart()
    for number, time in enumerate([0.0] * 9 + [0.7, 0.7, 0.7]):
        slow_start.sent(time, number)
    assert slow_start.is_over
    assert slow_start.wait(0.7, 12) == 0.0


def test_a_rate_that_doubles_for_an_hour_overflows_nothing():
    slow_start = SlowStart()
    for number in range(9):
        slow_start.sent(0.0, number)
    slow_start.sent(3600.0, 9)
    assert math.isfinite(slow_start.wait(3600.0, 10))


REJECTION = Rejection(sent_at=0.0, now=0.0, in_flight=3, accepted=100, accept_rate=50, hint=0.02)


def reject(state, times):
    for _ in range(times):
        state = state.rejected(REJECTION, 0.02)
    return state


class TestUnlimited:
    def test_it_begins_with_a_slow_start(self):
        sends = SendLog()
        state = Unlimited(sends)
        for _ in range(9):
            assert state.wait(0.0) == 0
            state = state.sent(0.0)
            sends.send(0.0)
        assert state.wait(0.0) > 0

    def test_the_first_rejection_makes_a_load_trial(self):
        state = Unlimited(SendLog()).rejected(REJECTION, 0.1)
        assert isinstance(state, LoadTrial)
        assert state.wait(0.0) == 0.1

    def test_the_first_answer_lets_the_slow_start_rise(self):
        state = Unlimited(SendLog())
        state.accepted(SendRecord(0.0, 0, 0), 0.1)
        assert state.slow_start.answered
