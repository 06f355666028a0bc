"""What the ablation of the policy makes of its measurements."""

from __future__ import annotations

import pytest

from benchmarks.pacing.ablation import PARTS, WHOLE, switched_off, tables
from chatpool._policy.adaptive.slow_start import SlowStart


def sample(part, what, found, limit=1.5):
    return {"round": 0, "part": part, "what": what, "found": found, "limit": limit}


def row_of(samples):
    (row,) = tables(samples)[0].rows
    return row


def test_a_bound_that_falls_is_shown_with_both_values():
    row = row_of([sample(WHOLE, "time", 1.1), sample("ramp", "time", 3.0)])
    assert row == ["ramp", "1", "1", "time 1.1 → 3 (at most 1.5)"]


def test_a_part_without_which_nothing_falls_has_none():
    assert row_of([sample(WHOLE, "time", 1.1), sample("ramp", "time", 1.1)]) == ["ramp", "0", "0", "-"]


def test_what_gets_worse_and_keeps_its_bound_is_counted():
    assert row_of([sample(WHOLE, "time", 1.1), sample("ramp", "time", 1.4)])[1:3] == ["0", "1"]


def test_the_bound_that_falls_furthest_comes_first():
    whole = [sample(WHOLE, what, 1.0) for what in "abcdef"]
    without = [sample("ramp", what, 2.0 + number) for number, what in enumerate("abcdef")]
    row = row_of([*whole, *without])
    assert row[1] == "6"
    assert [shown[0] for shown in row[-1].split("; ")] == ["f", "e", "d", "c"]


def test_a_bound_that_does_not_hold_anyway_falls_only_if_it_gets_worse():
    whole = sample(WHOLE, "time", 2.0)
    assert row_of([whole, sample("ramp", "time", 2.0)])[1] == "0"
    assert row_of([whole, sample("ramp", "time", 2.5)])[1] == "1"
    (broken,) = tables([whole])[1].rows
    assert broken == ["time", "1.5", "2"]


def test_calls_that_are_lost_are_a_bound_of_none():
    assert row_of([sample(WHOLE, "lost", 0, limit=0), sample("ramp", "lost", 3, limit=0)])[1] == "1"


@pytest.mark.parametrize("part", PARTS, ids=[part.name for part in PARTS])
def test_every_part_is_there_and_is_put_back(part):
    def values():
        return [getattr(place, attribute) for place, attribute, _ in part.patches]

    before = values()
    with switched_off(part):
        assert values() == [value for _, _, value in part.patches]
    assert values() == before


def test_parts_are_not_switched_off_twice():
    assert len({part.name for part in PARTS}) == len(PARTS)
    assert SlowStart.wait is not PARTS[0].patches[0][2]
