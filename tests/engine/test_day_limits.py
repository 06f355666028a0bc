"""A limit per day in the scheduler."""

from __future__ import annotations

from simulation import new_call

from chatpool import DayLimitError
from chatpool._engine.endpoints import EndpointSpec
from chatpool._engine.scheduler import Scheduler
from chatpool._engine.upstream import UNSENT
from chatpool._policy.day_window import SLOT_LIFE_SECONDS
from chatpool.config import Limits


def test_what_was_not_sent_after_all_leaves_room_for_another_call():
    scheduler = Scheduler(3, [EndpointSpec("s", limits=Limits(requests_per_day=1))])
    scheduler.submit([new_call() for _ in range(3)])
    first = scheduler.next_step(0.0).call
    assert first.unsendable is None
    scheduler.returned(first, UNSENT, 0.0)
    assert scheduler.next_step(0.0).call.unsendable is None
    refused = scheduler.next_step(0.0).call.unsendable
    assert isinstance(refused, DayLimitError)
    assert refused.retry_after == SLOT_LIFE_SECONDS
