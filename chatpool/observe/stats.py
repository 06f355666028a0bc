"""Counters over the life of a pool."""

from __future__ import annotations

import threading
from typing import Any, Dict

from ..events import Event
from ..types import Usage

__all__ = ["Statistics"]


class Statistics:
    """Counts how calls ended, the retries, what was asked again, and the tokens."""

    kinds = frozenset({"retrying", "reasking", "succeeded", "failed"})

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer that cancels a call may come while it is held
        self._counts = {"retrying": 0, "reasking": 0, "succeeded": 0, "failed": 0}
        self._tokens = [0, 0, 0, 0]

    def __call__(self, event: Event) -> None:
        usage = event.usage
        with self._lock:
            self._counts[event.kind] += 1
            if usage is not None:
                tokens = self._tokens
                tokens[0] += usage.prompt_tokens
                tokens[1] += usage.completion_tokens
                tokens[2] += usage.total_tokens
                tokens[3] += usage.cached_tokens

    def after_fork_in_child(self) -> None:
        """A thread of the parent's may have held the lock."""
        self._lock = threading.RLock()

    def snapshot(self) -> Dict[str, Any]:
        """``succeeded``, ``failed``, ``retried``, ``reasked`` and ``usage`` at this moment."""
        with self._lock:
            counts, tokens = dict(self._counts), tuple(self._tokens)
        return {
            "succeeded": counts["succeeded"],
            "failed": counts["failed"],
            "retried": counts["retrying"],
            "reasked": counts["reasking"],
            "usage": Usage(*tokens),
        }
