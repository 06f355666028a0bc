"""Refusals that many calls meet in the same words, where no call has ever succeeded: no further call will."""

from __future__ import annotations

from collections import OrderedDict
from typing import Hashable, Set

__all__ = ["CommonRefusals"]

_LEAST_CALLS = 10
_MOST_KINDS = 64  # of refusals that are remembered: servers may quote the request in theirs


class CommonRefusals:
    """Counts the calls that were refused in the same way.

    Not thread-safe: the caller holds the lock.

    Args:
        max_workers: as many calls as are in flight together may have been sent before the first was refused.
    """

    def __init__(self, max_workers: int) -> None:
        self._enough = max(_LEAST_CALLS, max_workers)
        self._calls: OrderedDict[Hashable, Set[int]] = OrderedDict()

    def refused(self, refusal: Hashable, call_id: int) -> bool:
        """Note that a call met ``refusal``; return True once enough calls have, and begin anew."""
        calls = self._calls.pop(refusal, None) or set()
        calls.add(call_id)
        if len(calls) >= self._enough:
            return True
        self._calls[refusal] = calls
        if len(self._calls) > _MOST_KINDS:
            self._calls.popitem(last=False)
        return False
