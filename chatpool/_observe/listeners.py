"""Listeners of a pool's events: counters over its life, and lines of the log about retries."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Deque, Dict, Optional

from .._locks import new_lock
from .._redaction import printable
from ..events import Event
from ..prices import Bill, Prices

__all__ = ["RetryLog", "Statistics"]

logger = logging.getLogger("chatpool")

_CHUNK_EVENTS = 64  # counted together


class Statistics:
    """Counts ends of calls, retries, answers that were asked for again, tokens and costs.

    Args:
        prices: for answers whose server does not state their cost.
    """

    kinds = frozenset({"retrying", "reasking", "succeeded", "failed"})

    def __init__(self, prices: Optional[Prices] = None) -> None:
        self._uncounted: Deque[Event] = deque()
        self._lock = new_lock()  # a finalizer that cancels a call may run while it is held
        self._is_counting = False
        self._counts = {"retrying": 0, "reasking": 0, "succeeded": 0, "failed": 0}
        self._bill = Bill(prices)

    def __call__(self, event: Event) -> None:
        self._uncounted.append(event)
        # Not the lock for each event: all worker threads would queue for it.
        if len(self._uncounted) >= _CHUNK_EVENTS:
            with self._lock:
                self._count()

    def _count(self) -> None:
        """Count the events that have come; the lock is held."""
        if self._is_counting:  # this is a finalizer that runs within this method
            return
        self._is_counting = True
        try:
            for _ in range(len(self._uncounted)):
                event = self._uncounted.popleft()
                self._counts[event.kind] += 1
                self._bill.add(event.usage, event.model, event.answered)
        finally:
            self._is_counting = False

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent process may have held."""
        self._lock = new_lock()
        self._is_counting = False

    def snapshot(self) -> Dict[str, Any]:
        """Return ``succeeded``, ``failed``, ``retried``, ``reasked``, ``usage`` and ``cost`` at this moment."""
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


class RetryLog:
    """Logs one line, at level INFO, per retry and per answer that is asked for again; never a prompt, never a key."""

    kinds = frozenset({"retrying", "reasking"})

    def __call__(self, event: Event) -> None:
        reason = printable(event.reason or "")  # it may come from a server
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
