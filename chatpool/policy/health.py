"""What the latest answers say about one (endpoint, model)."""

from __future__ import annotations

import math
from typing import Optional

from ..errors import APIError
from ..types import LineStats, Verdict

__all__ = ["LineHealth"]


class LineHealth:
    """The failure streak of one (endpoint, model), and the time until which the server wants to be left alone.

    Not thread-safe: the caller holds the lock.
    """

    __slots__ = ("proven", "refusal", "refuse_until", "streak")

    def __init__(self) -> None:
        self.streak = 0
        self.proven = False
        self.refuse_until = -math.inf
        self.refusal: Optional[APIError] = None

    def observe(self, verdict: Verdict) -> None:
        """Take one attempt's verdict into account."""
        if verdict.kind == "success":
            self.streak = 0
            self.proven = True
        elif verdict.kind in ("timeout", "unavailable", "retry"):
            self.streak += 1

    def refuse(self, until: float, error: APIError) -> None:
        """Send nothing before ``until``: the server has said that it will refuse."""
        if until > self.refuse_until:
            self.refuse_until, self.refusal = until, error

    def refusal_at(self, now: float) -> Optional[APIError]:
        """The error that a call sent now would draw, None if it may be sent."""
        return self.refusal if now < self.refuse_until else None

    def stats(self, now: float) -> LineStats:
        """This state for a person."""
        paused = self.refuse_until - now
        if paused <= 0:
            return LineStats(failure_streak=self.streak)
        return LineStats(self.streak, paused_until=paused, why=f"the server asked for it: {self.refusal}")
