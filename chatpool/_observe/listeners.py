"""Listeners of a pool's events: counters over its life, and lines of the log about calls."""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import asdict
from typing import Any, Deque, Dict, Optional

from .._locks import new_lock
from .._redaction import printable
from ..events import Event
from ..prices import Bill, Prices

__all__ = ["CallLog", "Statistics", "log_as_the_environment_says"]

logger = logging.getLogger("chatpool")

_CHUNK_EVENTS = 64  # counted together


class Statistics:
    """Counts ends of calls, retries, answers that were asked for again, fallbacks, tokens and costs.

    Args:
        prices: for answers whose server does not state their cost.
    """

    kinds = frozenset({"retrying", "reasking", "falling_back", "succeeded", "failed"})

    def __init__(self, prices: Optional[Prices] = None) -> None:
        self._uncounted: Deque[Event] = deque()
        self._lock = new_lock()  # a finalizer that cancels a call may run while it is held
        self._is_counting = False
        self._counts = dict.fromkeys(self.kinds, 0)
        self._cached = 0
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
                self._cached += event.cached is True
                self._bill.add(event.usage, event.model, event.response_model, tier=event.service_tier)
        finally:
            self._is_counting = False

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent process may have held."""
        self._lock = new_lock()
        self._is_counting = False

    def snapshot(self) -> Dict[str, Any]:
        """Return these counters of :class:`~chatpool.PoolStats` at this moment."""
        with self._lock:
            self._count()
            counts, usage, cost = dict(self._counts), self._bill.usage, self._bill.cost
            cached = self._cached
        return {
            "succeeded": counts["succeeded"],
            "failed": counts["failed"],
            "retried": counts["retrying"],
            "reasked": counts["reasking"],
            "fell_back": counts["falling_back"],
            "usage": usage,
            "cost": cost,
            "cached": cached,
        }


class CallLog:
    """Logs one line per retry, answer that is asked for again and fallback, at level INFO; never a prompt or a key.

    At level DEBUG, as it stands when the pool is made, there is also a line per attempt that is sent and per call that
    ends.
    """

    def __init__(self) -> None:
        self.kinds = frozenset({"retrying", "reasking", "falling_back"})
        if logger.isEnabledFor(logging.DEBUG):
            self.kinds |= {"sent", "succeeded", "failed"}

    def __call__(self, event: Event) -> None:
        if event.kind == "retrying":
            self._log(logging.INFO, event, " failed (%s); next attempt in %.3g s", event.reason, event.wait)
        elif event.kind == "reasking":
            self._log(logging.INFO, event, ": %s; it is asked again", event.reason)
        elif event.kind == "falling_back":
            self._log(logging.INFO, event, " failed (%s); a fallback is sent", event.reason)
        elif event.kind == "sent":
            self._log(logging.DEBUG, event, " is sent")
        elif event.kind == "succeeded":
            self._log(logging.DEBUG, event, " succeeded in %.3g s", event.elapsed or 0.0)
        else:
            self._log(logging.DEBUG, event, " failed (%s); the call has ended", event.reason)

    def _log(self, level: int, event: Event, text: str, *values: Any) -> None:
        """Write what happened to an attempt, then what it was about; parts of both come from the server."""
        model = None if event.model is None else f"model {event.model!r}"
        request_id = None if event.request_id is None else f"request id {event.request_id}"
        facts = ", ".join(fact for fact in (event.endpoint, model, request_id) if fact)
        shown = [printable(value) if isinstance(value, str) else value for value in (*values, facts)]
        extra = {"chatpool": _values_of(event)}
        logger.log(level, f"call %d: attempt %d{text}" + " (%s)", event.call_id, event.attempt, *shown, extra=extra)


def _values_of(event: Event) -> Dict[str, Any]:
    """Return what an event says as values that JSON has a form for, without what it does not say."""
    values = {name: value for name, value in event._asdict().items() if value is not None}
    if not event.fallback:
        del values["fallback"]
    if event.usage is not None:
        values["usage"] = asdict(event.usage)
    return values


_LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})


def log_as_the_environment_says() -> None:
    """Set the log's level to that of OPENAI_LOG, and have it written to stderr, as OpenAI's client does on import."""
    level = os.environ.get("OPENAI_LOG")
    if level in _LEVELS:
        line = "[%(asctime)s - %(name)s:%(lineno)d - %(levelname)s] %(message)s"
        logging.basicConfig(format=line, datefmt="%Y-%m-%d %H:%M:%S")  # nothing where the log has a handler
        logger.setLevel(level.upper())
