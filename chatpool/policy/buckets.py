"""Limits per minute, kept exactly: how long to wait, for what has been taken."""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, List

__all__ = ["Bucket", "MinuteWindow"]

_MINUTE = 60.0


class Bucket:
    """A leaky bucket as a meter, which is what GCRA computes: it fills by what is taken and leaks at a fixed rate.

    What is taken in any minute is at most ``burst`` and what leaks in a minute; so it leaks ``per_minute - burst``
    units a minute, and one more where only whole units are taken.  Something larger than the
    burst may be taken from an empty bucket, and is paid for afterwards.

    Args:
        per_minute: units that may be taken in any minute.
        burst: units that may be taken at once, at most half a minute's.
        unit: what is always taken, if it is always the same; then ``per_minute`` is a whole number of these.
    """

    __slots__ = ("_at", "_burst", "_leak", "_level", "_per_minute")

    def __init__(self, per_minute: float, burst: float, unit: float = 0.0) -> None:
        self._per_minute = per_minute
        self._burst = max(unit, min(burst, per_minute / 2))
        self._leak = (per_minute - self._burst + unit) / _MINUTE
        self._level = 0.0
        self._at = -math.inf

    def _settle(self, now: float) -> None:
        # A clock that goes back leaks nothing, and nothing twice when it comes forward again.
        if now > self._at:
            self._level = max(0.0, self._level - (now - self._at) * self._leak) if self._level else 0.0
            self._at = now

    def wait(self, now: float, amount: float) -> float:
        """Seconds until ``amount`` may be taken."""
        self._settle(now)
        over = self._level - max(0.0, self._burst - amount)
        return over / self._leak if over > 1e-9 else 0.0

    def take(self, now: float, amount: float) -> None:
        """Take ``amount``, whether or not there is room for it."""
        self._settle(now)
        self._level += amount

    def take_late(self, now: float, amount: float) -> None:
        """So much more than was taken has been used; whatever it is, it is made up for within a minute."""
        self._settle(now)
        self._level = max(self._level, min(self._level + amount, self._per_minute))

    def give_back(self, now: float, amount: float) -> None:
        """So much of what was taken was not needed; nothing below empty is ever given back."""
        self._settle(now)
        self._level = max(0.0, self._level - amount)


class MinuteWindow:
    """No more than a limit in any minute, also when amounts are corrected afterwards.

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
        while slots and slots[0][0] + 1 + _MINUTE <= now:
            self._total -= slots.popleft()[1]
        if not slots:
            self._total = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Seconds until ``amount`` may be taken."""
        self._forget(now)
        over = self._total + amount - self._limit
        if over <= 1e-9:
            return 0.0
        for second, taken in self._slots:
            over -= taken
            if over <= 1e-9:
                return second + 1 + _MINUTE - now
        return self._slots[-1][0] + 1 + _MINUTE - now if self._slots else 0.0

    def take(self, now: float, amount: float) -> None:
        """Take ``amount``, whether or not there is room for it."""
        self._forget(now)
        second = math.floor(now)
        if self._slots and self._slots[-1][0] >= second:
            self._slots[-1][1] += amount
        else:
            self._slots.append([second, amount])
        self._total += amount

    def correct(self, taken_at: float, difference: float) -> None:
        """What was taken at ``taken_at`` was more by ``difference``, or less."""
        second = math.floor(taken_at)
        for slot in reversed(self._slots):
            if slot[0] == second:
                difference = max(difference, -slot[1])
                slot[1] += difference
                self._total += difference
                return
            if slot[0] < second:
                return
