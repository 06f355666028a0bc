"""Counters of a pool, and one line of the log per retry."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatpool._observe.listeners import RetryLog, Statistics
from chatpool.events import Event
from chatpool.prices import prices_of
from chatpool.types import Usage


def event(kind, usage=None):
    return Event(kind, call_id=1, attempt=1, time=0.0, usage=usage)


def test_ends_retries_and_tokens_are_counted():
    statistics = Statistics()
    for heard in [event("retrying"), event("failed"), event("succeeded", Usage(3, 4, 7, 1)), event("succeeded")]:
        statistics(heard)
    usage = Usage(3, 4, 7, 1)
    counts = {"succeeded": 2, "failed": 1, "retried": 1, "reasked": 0}
    assert statistics.snapshot() == {**counts, "usage": usage, "cost": None}


def test_money_is_what_servers_state_or_else_by_the_prices_of_each_model():
    statistics = Statistics(prices_of({"m": (1, 2), "e": 0.5}))
    for usage, model in [(Usage(10, 10, 20), "m"), (Usage(20, 0, 20), "e"), (Usage(9, 9, 18, cost=0.25), "m")]:
        statistics(event("succeeded", usage)._replace(model=model))
    assert statistics.snapshot()["cost"] == pytest.approx(0.25 + 40e-6)


def test_what_was_asked_again_is_counted_with_its_tokens():
    statistics = Statistics()
    for heard in [event("reasking", Usage(1, 1, 2)), event("failed", Usage(2, 2, 4))]:
        statistics(heard)
    counted = statistics.snapshot()
    assert (counted["reasked"], counted["retried"], counted["failed"]) == (1, 0, 1)
    assert counted["usage"] == Usage(3, 3, 6)


def test_nothing_is_lost_between_threads():
    statistics = Statistics()
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: statistics(event("succeeded", Usage(1, 1, 2))), range(4000)):
            pass
    assert statistics.snapshot()["succeeded"] == 4000
    assert statistics.snapshot()["usage"] == Usage(4000, 4000, 8000)


def test_what_a_finalizer_adds_in_the_middle_of_counting_is_counted_once():
    statistics = Statistics()

    class Interrupting:
        """Tokens at whose reading the collector comes, and cancels many calls."""

        prompt_tokens = completion_tokens = cached_tokens = reasoning_tokens = 1
        cost = 0.0

        @property
        def total_tokens(self):
            for _ in range(200):
                statistics(event("failed"))
            return 0

    for _ in range(10):
        statistics(event("succeeded", Interrupting()))
    counted = statistics.snapshot()
    assert (counted["succeeded"], counted["usage"].prompt_tokens) == (10, 10)
    assert statistics.snapshot()["failed"] == 2000


def test_a_retry_is_one_line_with_attempt_reason_and_wait(caplog):
    event = Event("retrying", call_id=7, attempt=2, time=0.0, reason="503 server_error", wait=1.25)
    with caplog.at_level(logging.INFO, logger="chatpool"):
        RetryLog()(event)
    assert caplog.messages == ["call 7: attempt 2 failed (503 server_error); next attempt in 1.25 s"]
