"""Configured limits: leaky buckets and sliding windows per minute, a window per day; they are never exceeded."""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, List, Optional, Tuple

from ..config import Limits
from .day_window import DayLimits, DayWindow

__all__ = ["LeakyBucket", "RateLimiter", "SlidingWindow"]


_MINUTE_SECONDS = 60.0


class LeakyBucket:
    """Leaky bucket as a meter, which is what GCRA computes: it fills by what is taken and leaks at a fixed rate.

    At most ``burst`` and what leaks in a minute can be taken in any minute; so it leaks ``per_minute - burst`` units a
    minute, and one more where only whole units are taken.  An amount above the burst may be taken from an empty
    bucket and is made up for afterwards.

    Limits shared by processes (``chatpool._quota.gcra``) reserve moments instead, allow for late sends and a larger
    burst, and agree to the last bit with a Lua script: the two have the theory in common, not the arithmetic.

    Args:
        per_minute: units that may be taken in any minute.
        burst: units that may be taken at once, at most half of those of a minute.
        unit: the amount of each taking, if it is always the same; then ``per_minute`` is a whole number of these.
    """

    __slots__ = ("_at", "_burst", "_leak", "_level", "_per_minute")

    def __init__(self, per_minute: float, burst: float, unit: float = 0.0) -> None:
        self._per_minute = per_minute
        self._burst = max(unit, min(burst, per_minute / 2))
        self._leak = (per_minute - self._burst + unit) / _MINUTE_SECONDS
        self._level = 0.0
        self._at = -math.inf

    def _settle(self, now: float) -> None:
        # A clock that goes back leaks nothing, and nothing twice when it comes forward again.
        if now > self._at:
            self._level = max(0.0, self._level - (now - self._at) * self._leak) if self._level else 0.0
            self._at = now

    def wait(self, now: float, amount: float) -> float:
        """Return the seconds until ``amount`` may be taken."""
        self._settle(now)
        over = self._level - max(0.0, self._burst - amount)
        return over / self._leak if over > 1e-9 else 0.0

    def take(self, now: float, amount: float) -> None:
        """Take ``amount``, even if there is no room for it."""
        self._settle(now)
        self._level += amount

    def take_late(self, now: float, amount: float) -> None:
        """Take ``amount`` that was used beyond what was taken; whatever it is, it has leaked within a minute."""
        self._settle(now)
        self._level = max(self._level, min(self._level + amount, self._per_minute))

    def give_back(self, now: float, amount: float) -> None:
        """Give back ``amount`` that was taken and not used; the level never falls below empty."""
        self._settle(now)
        self._level = max(0.0, self._level - amount)


class SlidingWindow:
    """At most a limit in any minute, also when amounts are corrected afterwards.

    Counts in slots of a second; a slot is forgotten when no minute can hold any of it together with the present.

    Args:
        limit: units that may be taken in any minute.
    """

    __slots__ = ("_limit", "_slots", "_total")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._total = 0.0
        self._slots: Deque[List[float]] = deque()  # [second, amount], oldest first

    def _forget(self, now: float) -> None:
        slots = self._slots
        while slots and slots[0][0] + 1 + _MINUTE_SECONDS <= now:
            self._total -= slots.popleft()[1]
        if not slots:
            self._total = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Return the seconds until ``amount`` may be taken."""
        self._forget(now)
        over = self._total + amount - self._limit
        if over <= 1e-9:
            return 0.0
        for second, taken in self._slots:
            over -= taken
            if over <= 1e-9:
                return second + 1 + _MINUTE_SECONDS - now
        return self._slots[-1][0] + 1 + _MINUTE_SECONDS - now if self._slots else 0.0

    def take(self, now: float, amount: float) -> None:
        """Take ``amount``, even if there is no room for it."""
        self._forget(now)
        second = math.floor(now)
        if self._slots and self._slots[-1][0] >= second:
            self._slots[-1][1] += amount
        else:
            self._slots.append([second, amount])
        self._total += amount

    def correct(self, taken_at: float, difference: float) -> None:
        """Correct what was taken at ``taken_at`` by ``difference``, which may be negative."""
        second = math.floor(taken_at)
        for slot in reversed(self._slots):
            if slot[0] == second:
                difference = max(difference, -slot[1])
                slot[1] += difference
                self._total += difference
                return
            if slot[0] < second:
                return


class RateLimiter:
    """Requests and tokens per minute and per day that are configured, taken in one step by each call.

    A day that is shared with other processes is counted where they meet, and not here.

    Args:
        limits: the settings; at least one limit is set.
    """

    __slots__ = ("_day", "_day_limits", "_requests", "_token_window", "_tokens", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        per_day = DayLimits.of(limits.requests_per_day, limits.tokens_per_day)
        self._day_limits = per_day if limits.scope is None else None
        self._day = DayWindow()
        self._requests: Optional[LeakyBucket] = None
        self._tokens: Optional[LeakyBucket] = None
        if limits.requests_per_minute is not None:
            requests = math.floor(limits.requests_per_minute)
            self._requests = LeakyBucket(requests, requests / 60 * limits.burst, unit=1.0)
        if limits.tokens_per_minute is not None:
            per_minute = limits.tokens_per_minute
            self._tokens = LeakyBucket(per_minute, per_minute / 60 * limits.burst)
            self._token_window = SlidingWindow(per_minute)

    def too_large(self, tokens: float) -> Optional[str]:
        """Return why a request of ``tokens`` tokens can never be sent, None if it can."""
        for period in ("minute", "day"):
            limit = getattr(self.limits, f"tokens_per_{period}")
            if limit is not None and tokens > limit:
                return (
                    f"the request needs about {tokens:,.0f} tokens (prompt and longest answer), more than "
                    f"Limits(tokens_per_{period}={limit:,.0f}) allows in a {period}: shorten it, or lower its "
                    "max_tokens"
                )
        return None

    @property
    def max_tokens(self) -> float:
        """Tokens of the largest request that may be sent; ``inf`` where any may be."""
        limits = (self.limits.tokens_per_minute, self.limits.tokens_per_day)
        return min((limit for limit in limits if limit is not None), default=math.inf)

    def day_wait(self, now: float, tokens: float) -> float:
        """Return the seconds until the day has room for a request of ``tokens`` tokens."""
        if self._day_limits is None:
            return 0.0
        self._day.advance(now)
        return self._day.wait(self._day_limits, 1.0, tokens)

    def day_left(self, now: float) -> Optional[DayLimits]:
        """Return what the day has left, None without such limits."""
        if self._day_limits is None:
            return None
        self._day.advance(now)
        return self._day_limits.left(*self._day.used())

    @property
    def remembers_day(self) -> bool:
        """True if what was sent may still count against the day."""
        return bool(self._day.slots)

    def wait(self, now: float, tokens: float) -> float:
        """Return the seconds until a request of ``tokens`` tokens may be sent."""
        return max(self.waits(now, tokens))

    def waits(self, now: float, tokens: float) -> Tuple[float, float]:
        """Return the same for the limit of requests and for that of tokens."""
        for_requests = for_tokens = 0.0
        if self._requests is not None:
            for_requests = self._requests.wait(now, 1.0)
        if self._tokens is not None:
            for_tokens = max(self._tokens.wait(now, tokens), self._token_window.wait(now, tokens))
        return for_requests, for_tokens

    @property
    def per_second(self) -> Optional[float]:
        """Requests a second, None without a limit of requests."""
        per_minute = self.limits.requests_per_minute
        return None if per_minute is None else per_minute / _MINUTE_SECONDS

    def sent(self, now: float, tokens: float) -> None:
        """Note that a request of ``tokens`` tokens is sent."""
        if self._requests is not None:
            self._requests.take(now, 1.0)
        if self._tokens is not None:
            self._tokens.take(now, tokens)
            self._token_window.take(now, tokens)
        if self._day_limits is not None:
            self._day.advance(now)
            self._day.take(now, 1.0, tokens)

    def unsent(self, sent_at: float, now: float, tokens: float) -> None:
        """Give back to the day what a request of ``tokens`` tokens took that was not sent after all."""
        if self._day_limits is not None:
            self._day.advance(now)
            self._day.correct(sent_at, -1.0, -tokens)

    def corrected(self, sent_at: float, now: float, tokens: float, used: float) -> None:
        """Correct the tokens of a request that was sent as one of ``tokens`` and has used ``used``.

        More than the limit of a minute never counts: the window is over by then in any case, and many answers at once
        may report impossible numbers.
        """
        if self._day_limits is not None:
            self._day.advance(now)
            self._day.correct(sent_at, 0.0, min(used, self._day_limits.tokens) - tokens)
        used = min(used, self.limits.tokens_per_minute or 0.0)
        if self._tokens is None or used == tokens:
            return
        if used < tokens:
            self._tokens.give_back(now, tokens - used)
        else:
            self._tokens.take_late(now, used - tokens)
        self._token_window.correct(sent_at, used - tokens)
