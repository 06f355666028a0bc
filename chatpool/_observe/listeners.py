"""Counters over the life of a pool.

Retries and what is asked again, to the ``chatpool`` logger at level INFO.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Deque, Dict, Optional

from .._locks import new_lock
from .._redaction import printable
from ..events import Event
from ..prices import Bill, Prices

__all__ = ["RetryLog", "Statistics"]


_AT_A_TIME = 64  # events


class Statistics:
    """Counts how calls ended, the retries, what was asked again, the tokens and the money.

    Args:
        prices: for answers whose server does not state their cost; None without any.
    """

    kinds = frozenset({"retrying", "reasking", "succeeded", "failed"})

    def __init__(self, prices: Optional[Prices] = None) -> None:
        self._heard: Deque[Event] = deque()  # not counted yet
        self._lock = new_lock()  # a finalizer that cancels a call may come while it is held
        self._counting = False
        self._counts = {"retrying": 0, "reasking": 0, "succeeded": 0, "failed": 0}
        self._bill = Bill(prices)

    def __call__(self, event: Event) -> None:
        self._heard.append(event)
        # A lock that all workers take for each call would have them queue.
        if len(self._heard) >= _AT_A_TIME:
            with self._lock:
                self._count()

    def _count(self) -> None:
        """Add up what was heard."""
        if self._counting:  # this is a finalizer that came in the middle of it
            return
        self._counting = True
        try:
            for _ in range(len(self._heard)):
                event = self._heard.popleft()
                self._counts[event.kind] += 1
                self._bill.add(event.usage, event.model, event.answered)
        finally:
            self._counting = False

    def after_fork_in_child(self) -> None:
        """A thread of the parent's may have held the lock."""
        self._lock = new_lock()
        self._counting = False

    def snapshot(self) -> Dict[str, Any]:
        """``succeeded``, ``failed``, ``retried``, ``reasked``, ``usage`` and ``cost`` at this moment."""
        with self._lock:
            self._count()
            counts, usage, cost = dict(self._counts), self._bill.usage, self._bill.cost
        return {
            "succeeded": counts["succeeded"],
            "failed": counts["failed"],
            "retried": counts["retrying"],
            "reasked": counts["reasking"],
            "usage": usage,
            "cost": cost,
        }


logger = logging.getLogger("chatpool")


class RetryLog:
    """Logs one line per retry: which attempt of which call failed, why, and the wait.  Never a prompt, never a key.

    The same for an answer that was not taken.
    """

    kinds = frozenset({"retrying", "reasking"})

    def __call__(self, event: Event) -> None:
        reason = printable(event.reason or "")  # some are a server's words
        if event.kind == "reasking":
            logger.info("call %d: attempt %d: %s; it is asked again", event.call_id, event.attempt, reason)
            return
        logger.info(
            "call %d: attempt %d failed (%s); next attempt in %.3g s",
            event.call_id,
            event.attempt,
            reason,
            event.wait,
        )
