"""Servers that reject, simulated: when each would accept a request, to the second."""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, List, Optional, Sequence, Tuple

__all__ = ["Bucket", "Cap", "FixedWindow", "Server", "Shaper", "SlidingWindow", "Successive", "Unlimited"]


class Server:
    """Accepts or rejects; ``weight`` is how much of the limit a request takes."""

    def free_in(self, now: float, in_flight: int, weight: float) -> float:
        """Seconds until a request would be accepted; 0 for now, ``inf`` for not before another ends."""
        raise NotImplementedError

    def accept(self, now: float, weight: float) -> float:
        """Take a request for which :meth:`free_in` is 0; returns for how many seconds it is held back."""
        return 0.0


class Unlimited(Server):
    """Accepts everything."""

    def free_in(self, now: float, in_flight: int, weight: float) -> float:
        return 0.0


class Bucket(Server):
    """A token bucket that is full at first; ``changes`` are pairs of a time and the rate from then on."""

    def __init__(self, rate: float, burst: float, changes: Sequence[Tuple[float, float]] = ()) -> None:
        self.rate, self.burst = rate, max(1.0, burst)
        self._tokens, self._at = self.burst, 0.0
        self._changes: List[Tuple[float, float]] = sorted(changes, reverse=True)

    def _refill(self, now: float) -> None:
        while self._changes and self._changes[-1][0] <= now:
            when, rate = self._changes.pop()
            self._refill(when)
            self.rate = rate
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now

    def free_in(self, now: float, in_flight: int, weight: float) -> float:
        self._refill(now)
        missing = min(weight, self.burst) - self._tokens
        return 0.0 if missing <= 1e-9 * max(1.0, self.rate) else missing / self.rate

    def accept(self, now: float, weight: float) -> float:
        self._tokens -= weight
        return 0.0

    def left(self, now: float) -> float:
        """Units that may be taken now."""
        self._refill(now)
        return self._tokens


class Shaper(Bucket):
    """A leaky bucket as nginx has it (``limit_req`` with a burst): what comes too early is held back, or rejected."""

    def __init__(self, rate: float, burst: float) -> None:
        super().__init__(rate, burst + 1)

    def accept(self, now: float, weight: float) -> float:
        super().accept(now, weight)
        return max(0.0, self.burst - 1 - self._tokens) / self.rate


class FixedWindow(Server):
    """So many requests in each window; the count starts again at the window's end."""

    def __init__(self, limit: int, seconds: float, offset: float = 0.0) -> None:
        self.limit, self.seconds = limit, seconds
        self._ends, self._used = seconds - offset, 0.0

    def free_in(self, now: float, in_flight: int, weight: float) -> float:
        while now >= self._ends:
            self._ends, self._used = self._ends + self.seconds, 0.0
        return 0.0 if self._used + weight <= self.limit else self._ends - now

    def accept(self, now: float, weight: float) -> float:
        self._used += weight
        return 0.0


class SlidingWindow(Server):
    """So many requests in every window, wherever it begins."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self._accepted: Deque[float] = deque()

    def free_in(self, now: float, in_flight: int, weight: float) -> float:
        accepted = self._accepted
        while accepted and accepted[0] <= now - self.seconds + 1e-9:
            accepted.popleft()
        return 0.0 if len(accepted) < self.limit else accepted[0] + self.seconds - now

    def accept(self, now: float, weight: float) -> float:
        self._accepted.append(now)
        return 0.0


class Cap(Server):
    """At most so many requests at once; ``changes`` as in :class:`Bucket`."""

    def __init__(self, limit: int, changes: Sequence[Tuple[float, int]] = ()) -> None:
        self.limit = limit
        self._changes: List[Tuple[float, int]] = sorted(changes, reverse=True)

    def free_in(self, now: float, in_flight: int, weight: float) -> float:
        while self._changes and self._changes[-1][0] <= now:
            self.limit = self._changes.pop()[1]
        return 0.0 if in_flight < self.limit else math.inf


def stated(kind: Optional[str], exact: float, fallback: float) -> Optional[float]:
    """The hint that a server of this kind gives for an ``exact`` wait; ``fallback`` where it cannot know it."""
    if kind is None:
        return None
    seconds = fallback if math.isinf(exact) else exact
    return max(1.0, math.ceil(seconds - 1e-6)) if kind == "whole" else seconds


class Successive(Server):
    """One limit until a time, and another from then on."""

    def __init__(self, first: Server, then: Server, until: float) -> None:
        self._first, self._then, self._until = first, then, until

    def _limit(self, now: float) -> Server:
        return self._first if now < self._until else self._then

    def free_in(self, now: float, in_flight: int, weight: float) -> float:
        return self._limit(now).free_in(now, in_flight, weight)

    def accept(self, now: float, weight: float) -> float:
        return self._limit(now).accept(now, weight)
