"""When one refusal of many calls stands for all."""

from __future__ import annotations

import pytest

from chatpool._policy.circuit_breaker import CommonRejections


@pytest.mark.parametrize(("max_workers", "enough"), [(1, 10), (10, 10), (16, 16), (64, 64)])
def test_ten_calls_or_as_many_as_there_are_workers_show_it(max_workers, enough):
    refusals = CommonRejections(max_workers)
    found = [refusals.refused("no", call) for call in range(enough)]
    assert found == [False] * (enough - 1) + [True]


def test_a_call_that_is_refused_again_counts_once():
    refusals = CommonRejections(1)
    assert not any(refusals.refused("no", call % 9) for call in range(100))


def test_other_refusals_count_apart():
    refusals = CommonRejections(1)
    assert not any(refusals.refused(f"row {call} is wrong", call) for call in range(1000))


def test_once_it_is_shown_the_count_begins_anew():
    refusals = CommonRejections(1)
    found = [refusals.refused("no", call) for call in range(20)]
    assert [number for number, all_are in enumerate(found) if all_are] == [9, 19]
