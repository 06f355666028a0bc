"""Limits per day: what was sent in the last 24 hours, counted in slots of five minutes.

Servers count a day in one of three ways: from midnight to midnight, as a window of 24 hours, or as a bucket that
refills evenly.  A count over the last 24 hours, whenever they end, is within the first two, and needs no midnight of
any time zone.  Slots keep it small: at most 289 of them, however much is sent.  What was sent in one is forgotten
when all of it is a day old, so no 24 hours ever hold more than the limit.

:mod:`chatpool._quota.redis` does the same, step by step, inside Redis; the two agree to the last bit.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Optional, Tuple

from .._values import LATENESS_SECONDS

__all__ = ["DAY_SECONDS", "SLOT_LIFE_SECONDS", "SLOT_SECONDS", "DayLimits", "DayWindow"]


DAY_SECONDS = 86400.0
SLOT_SECONDS = 300.0
SLOT_LIFE_SECONDS = DAY_SECONDS + SLOT_SECONDS + LATENESS_SECONDS
"""Seconds from the start of a slot to when no 24 hours hold both the present and anything sent in the slot."""

_NO_LIMIT = 1e300  # Lua can read it, and cannot read infinity
_ROUNDING = 1e-9


class DayLimits(NamedTuple):
    """Units that may be sent in any 24 hours."""

    requests: float = _NO_LIMIT
    tokens: float = _NO_LIMIT

    @classmethod
    def of(cls, requests_per_day: Optional[float], tokens_per_day: Optional[float]) -> Optional[DayLimits]:
        """Return the limits of a user; None where there are none."""
        if requests_per_day is None and tokens_per_day is None:
            return None
        return cls(
            _NO_LIMIT if requests_per_day is None else float(math.floor(requests_per_day)),
            _NO_LIMIT if tokens_per_day is None else tokens_per_day,
        )

    def left(self, requests: float, tokens: float) -> DayLimits:
        """Return what is left of each after so much was sent; what has no limit stays without one."""
        return DayLimits(_left(self.requests, requests), _left(self.tokens, tokens))

    @property
    def known(self) -> Tuple[Optional[float], Optional[float]]:
        """Both, None for the one that is no limit."""
        return tuple(None if limit >= _NO_LIMIT else limit for limit in self)  # type: ignore[return-value]  # of two


def _left(limit: float, used: float) -> float:
    return limit if limit >= _NO_LIMIT else max(0.0, limit - used)


class DayWindow:
    """Requests and tokens of the last 24 hours; times are on any one clock.

    Attributes:
        touched: when it was last used.
        slots: ``[start, requests, tokens]``, oldest first; a slot begins with the first unit in it.
    """

    __slots__ = ("slots", "touched")

    def __init__(self, touched: float = 0.0, slots: Optional[List[List[float]]] = None) -> None:
        self.touched = touched
        self.slots: List[List[float]] = [] if slots is None else slots

    def advance(self, now: float) -> float:
        """Forget what is old; return the present, on a clock that was set back as if no time had passed."""
        back = math.floor(self.touched - now)
        if back > 0:
            self.touched -= back
            for slot in self.slots:
                slot[0] -= back
        self.touched = max(self.touched, now)
        old = 0
        while old < len(self.slots) and self.slots[old][0] + SLOT_LIFE_SECONDS <= self.touched:
            old += 1
        del self.slots[:old]
        return self.touched

    def used(self) -> Tuple[float, float]:
        """Return the requests and the tokens that count; the time has been advanced."""
        requests = tokens = 0.0
        for slot in self.slots:  # not sum(), which rounds in another way from Python 3.12 on
            requests += slot[1]
            tokens += slot[2]
        return requests, tokens

    def wait(self, limits: DayLimits, requests: float, tokens: float) -> float:
        """Return the seconds until so much may be sent; the time has been advanced."""
        total_requests, total_tokens = self.used()
        total_requests += requests
        total_tokens += tokens
        wait = 0.0
        for slot in self.slots:
            if total_requests <= limits.requests + _ROUNDING and total_tokens <= limits.tokens + _ROUNDING:
                break
            total_requests -= slot[1]
            total_tokens -= slot[2]
            wait = slot[0] + SLOT_LIFE_SECONDS - self.touched
        return wait

    def take(self, at: float, requests: float, tokens: float) -> None:
        """Count what is sent at ``at``, now or later, even if there is no room for it."""
        if self.slots and at < self.slots[-1][0] + SLOT_SECONDS:
            self.slots[-1][1] += requests
            self.slots[-1][2] += tokens
        else:
            self.slots.append([at, requests, tokens])

    def correct(self, at: float, requests: float, tokens: float) -> None:
        """Correct what was sent at ``at`` by amounts that may be negative: more counts from now on."""
        if requests > 0 or tokens > 0:
            self.take(self.touched, max(0.0, requests), max(0.0, tokens))
        for slot in reversed(self.slots):
            if slot[0] <= at:
                slot[1] = max(0.0, slot[1] + min(0.0, requests))
                slot[2] = max(0.0, slot[2] + min(0.0, tokens))
                return
