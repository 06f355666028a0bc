"""A key that has just worked and is refused."""

from __future__ import annotations

import math

from chatpool._policy.retry import KeyRecheck


def worked(at=0.0):
    recheck = KeyRecheck()
    recheck.sent()
    recheck.succeeded(at, at)
    return recheck


def refuse(recheck, sent_at, now=None):
    recheck.sent()
    recheck.refused(sent_at, sent_at if now is None else now, recheck.worked_at)


def test_without_a_success_in_the_last_minute_a_refusal_stands():
    for recheck, now in ((KeyRecheck(), 0.0), (worked(), 61.0)):
        refuse(recheck, now)
        assert (recheck.pause, recheck.wait(now)) == (None, 0.0)


def test_a_doubt_holds_the_line_for_a_second_and_lets_one_call_try():
    recheck = worked()
    refuse(recheck, 5.0)
    assert (recheck.pause, round(recheck.wait(5.0), 3), recheck.wait(6.1)) == (1.0, 1.01, 0.0)
    recheck.sent()
    assert recheck.wait(6.1) == math.inf


def test_three_refused_tries_end_the_doubt_until_something_succeeds():
    recheck = worked()
    for second in range(5, 9):
        assert recheck.pause == (None if second == 5 else 1.0)
        refuse(recheck, second)
    assert (recheck.pause, recheck.wait(8.0)) == (None, 0.0)
    refuse(recheck, 9.0)
    assert recheck.pause is None
    recheck.succeeded(10.0, 10.0)
    refuse(recheck, 11.0)
    assert recheck.pause == 1.0


def test_calls_that_were_on_their_way_are_no_tries():
    recheck = worked()
    refuse(recheck, 5.0, 5.2)
    for _ in range(20):
        recheck.refused(5.1, 5.4, 0.0)
    assert (recheck.pause, round(recheck.wait(5.2), 3)) == (1.0, 1.01)


def test_a_success_that_was_sent_later_ends_the_doubt_and_an_earlier_one_does_not():
    recheck = worked()
    refuse(recheck, 5.0)
    recheck.succeeded(4.9, 5.1)
    assert recheck.pause == 1.0
    recheck.succeeded(5.0, 5.2)
    assert (recheck.pause, recheck.wait(5.2)) == (None, 0.0)


def test_a_try_that_says_nothing_makes_room_for_the_next():
    recheck = worked()
    refuse(recheck, 5.0)
    recheck.sent()
    recheck.ended(6.1)
    assert recheck.wait(6.1) == 0.0
