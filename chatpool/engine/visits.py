"""Where a call has been, in a pool with several endpoints."""

from __future__ import annotations

import math
from typing import Dict, Iterable, Optional, Set, Tuple

from ..errors import ChatPoolError

__all__ = ["LineKey", "Visits"]

LineKey = Tuple[str, Optional[str]]
"""(endpoint, model): what pacing, streaks and pauses are kept for.  The endpoint is its name."""


class Visits:
    """The endpoints that one call has failed at, each with the time until which the call stays away from it.

    Written by the worker that runs the call, read under the scheduler's lock while it waits: never both at once.

    Attributes:
        refreshed: the endpoints whose key was fetched again for it.
        refusals: the endpoints that refused it as they would every call, with their reasons.
    """

    __slots__ = ("_until", "refreshed", "refusals")

    def __init__(self) -> None:
        self._until: Dict[LineKey, float] = {}
        self.refreshed: Set[LineKey] = set()
        self.refusals: Dict[LineKey, ChatPoolError] = {}

    def may_go(self, key: LineKey, now: float) -> bool:
        """Whether the call may be sent there."""
        return self._until.get(key, -math.inf) <= now

    def until(self, key: LineKey) -> float:
        """When it may be."""
        return self._until.get(key, -math.inf)

    def leave(self, key: LineKey, until: float) -> None:
        """It failed there, and stays away until then."""
        self._until[key] = until

    def refused(self, key: LineKey, reason: ChatPoolError) -> None:
        """It was refused there as every call would be, and does not go there again."""
        self.refusals[key] = reason
        self._until[key] = math.inf

    def stay(self, key: LineKey, others: Iterable[LineKey], until: float) -> None:
        """Until then it goes to none of the others."""
        self._until.pop(key, None)
        for other in others:
            self._until[other] = max(until, self.until(other))

    def soonest(self, latest: float) -> float:
        """The first time at which it may go back to where it has been; ``latest`` at the latest."""
        return min([latest, *self._until.values()])
