"""When a response in the background is asked for again."""

from __future__ import annotations

import pytest

from chatpool._engine.background_state import BackgroundState, poll_wait
from chatpool._values import Verdict

PENDING = Verdict("pending")


def waits(polls, verdict=PENDING, **options):
    background = BackgroundState()
    background.polls = polls
    return [poll_wait(background, verdict, **{"others": 0, "longest_hint": 120.0, **options}) for _ in range(200)]


@pytest.mark.parametrize(("polls", "longest"), [(0, 0.5), (1, 1.0), (2, 2.0), (5, 16.0), (6, 20.0), (10**6, 20.0)])
def test_the_wait_doubles_up_to_twenty_seconds(polls, longest):
    drawn = waits(polls)
    assert max(drawn) <= longest
    assert min(drawn) >= 0.75 * longest
    assert len(set(drawn)) > 100  # responses that were asked for together are not asked for together again


def test_the_server_may_ask_for_longer_within_reason():
    assert min(waits(0, Verdict("pending", retry_after=30.0))) == 30.0
    assert max(waits(0, Verdict("pending", retry_after=9999.0))) == 120.0
    assert min(waits(6, Verdict("pending", retry_after=1.0))) >= 15.0


def test_very_many_are_asked_for_less_often_each():
    assert max(waits(6, others=400)) <= 20.0
    assert min(waits(0, others=2000)) >= 75.0
