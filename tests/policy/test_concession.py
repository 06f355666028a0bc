"""The rules by which places at a full server are left to others."""

from __future__ import annotations

import pytest

from chatpool.policy.concession import Concession


def conceded(concession, refusals, in_flight=20):
    """What is given up after each of so many refusals, none of which shows that somebody took the places."""
    given = []
    for _ in range(refusals):
        given.append(concession.refused(in_flight))
        concession.over()
    return given


def test_a_fifth_is_given_up():
    assert Concession().refused(20) == 4


@pytest.mark.parametrize("in_flight", range(5))
def test_who_has_few_gives_up_none(in_flight):
    concession = Concession()
    assert concession.refused(in_flight) == 0
    assert concession.before == 0


def test_less_often_when_nobody_uses_them():
    given = conceded(Concession(), 120)
    assert [number for number, count in enumerate(given) if count] == [0, 2, 6, 14, 30, 62, 94]


def test_at_once_again_when_somebody_did():
    concession = Concession()
    conceded(concession, 15)
    while not concession.refused(20):
        pass
    assert concession.taken(19)
    assert not concession.taken(20)
    assert concession.refused(19) == 3
    assert concession.before == 19


def test_two_who_have_unequally_many_come_closer():
    # What one leaves free, the other takes.
    large, small = Concession(), Concession()
    held = {large: 18, small: 2}
    for turn in range(20):
        giver, taker = (small, large) if turn % 2 else (large, small)
        given = giver.refused(held[giver])
        held[giver] -= given
        held[taker] += given
    assert abs(held[large] - held[small]) <= 4
