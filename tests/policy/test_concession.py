"""The rules by which places at a full server are left to others."""

from __future__ import annotations

import pytest

from chatpool.policy.concession import Concession


def conceded(concession, refusals, in_flight=20):
    """What is given up after each of so many refusals, none of which shows that there is somebody else."""
    return [concession.refused(in_flight) for _ in range(refusals)]


def test_a_fifth_is_given_up():
    concession = Concession()
    assert concession.refused(20) == 4
    assert (concession.before, concession.kept) == (20, 16)


def test_until_it_is_over():
    concession = Concession()
    concession.refused(20)
    concession.over()
    assert (concession.before, concession.kept) == (0, 0)


@pytest.mark.parametrize("in_flight", range(5))
def test_who_has_few_gives_up_none(in_flight):
    concession = Concession()
    assert concession.refused(in_flight, others=True) == 0
    assert concession.before == 0


def test_less_often_when_nobody_uses_them():
    given = conceded(Concession(), 64)
    assert [number for number, count in enumerate(given) if count] == [0, 2, 6, 14, 30, 46, 62]


def test_refusals_after_which_nothing_can_be_given_up_make_it_no_rarer():
    concession = Concession()
    conceded(concession, 50, in_flight=4)
    assert concession.refused(20) == 4


def test_at_once_when_somebody_else_takes_places():
    concession = Concession()
    conceded(concession, 40)
    assert [concession.refused(19, others=True) for _ in range(3)] == [3, 3, 3]
