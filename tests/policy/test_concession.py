"""The rules by which places at a full server are left to others."""

from __future__ import annotations

import pytest

from chatpool._policy.adaptive.concurrency import FairShareYield


def conceded(concession, refusals, in_flight=100):
    """After which of so many refusals some are given up; none of them shows that there is somebody else."""
    return [number for number in range(1, refusals + 1) if concession.refused(in_flight)]


RARELY = conceded(FairShareYield(), 100)[0]  # refusals, from one concession to the next


def test_where_nobody_else_shows_it_is_rare_so_that_it_costs_next_to_nothing():
    assert RARELY >= 10
    assert conceded(FairShareYield(), 4 * RARELY) == [RARELY, 2 * RARELY, 3 * RARELY, 4 * RARELY]


def test_a_tenth_or_more_is_given_up_until_the_next_refusal():
    concession = FairShareYield()
    conceded(concession, RARELY - 1)
    given = concession.refused(100)
    assert 10 <= given <= 25
    assert (concession.before, concession.kept) == (100, 100 - given)
    concession.refused(100)
    assert (concession.before, concession.kept) == (0, 0)


def test_or_until_it_is_over():
    concession = FairShareYield()
    conceded(concession, RARELY)
    concession.over()
    assert (concession.before, concession.kept) == (0, 0)


@pytest.mark.parametrize("in_flight", range(5))
def test_who_has_few_gives_up_none(in_flight):
    concession = FairShareYield()
    assert concession.refused(in_flight, others=True) == 0
    assert concession.before == 0


def test_refusals_after_which_nothing_can_be_given_up_make_it_no_rarer():
    concession = FairShareYield()
    conceded(concession, 50, in_flight=4)
    assert concession.refused(100) > 0


def test_at_once_when_somebody_else_takes_places():
    concession = FairShareYield()
    conceded(concession, RARELY // 2)
    assert all(concession.refused(100, others=True) for _ in range(3))


def test_afterwards_less_and_less_often_when_nobody_does():
    concession = FairShareYield()
    concession.refused(100, others=True)
    numbers = [0, *conceded(concession, 6 * RARELY)]
    gaps = [after - before for before, after in zip(numbers, numbers[1:])]
    assert gaps[:3] == [2, 4, 8]
    assert gaps[-1] == RARELY
    assert gaps == sorted(gaps)
