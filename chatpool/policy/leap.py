"""Whether the rate has anything to do with the refusals: now and then a few calls are sent much faster."""

from __future__ import annotations

import math

from .tally import Refusal

__all__ = ["Leap"]

_FIRST_AFTER = 3  # refusals; twice as many after each leap that failed, one after one that was passed
_LONG_PAUSE = 0.25  # seconds; a leap that fails costs another such pause ...
_WORTH_OF_LONG_PAUSE = 0.34  # ... so a refusal with it counts less
_CALLS = 8
_STRIKES = 2  # refusals with which it has failed; one may be chance


class Leap:
    """Tries a multiple of the rate on a few calls, after some refusals.

    A server that limits the rate has just shown that it has nothing left, so it refuses most of them.

    Attributes:
        in_a_row: leaps that were passed, since one failed.
    """

    FACTOR = 3.0

    def __init__(self) -> None:
        self.in_a_row = 0
        self._after = self._refusals_left = float(_FIRST_AFTER)
        self._calls_left = self._strikes = 0
        self._from = self._last_sent = math.inf

    def sent(self, now: float) -> float:
        """An attempt goes out; returns how many times as soon as usual the next may follow."""
        if self._calls_left == 0:
            return 1.0
        if math.isinf(self._from):
            self._from = now
        self._calls_left -= 1
        self._last_sent = now
        return self.FACTOR if self._calls_left else 1.0

    def refused(self, rate: float, pause: float) -> None:
        """An attempt sent after the latest refusal was refused; what the pause refills is no part of the leap."""
        if self._under_way():
            self._strike()
            return
        self._refusals_left -= _WORTH_OF_LONG_PAUSE if pause > _LONG_PAUSE else 1.0
        if self._refusals_left <= 0:
            self._calls_left = _CALLS + math.ceil(rate * pause)
            self._strikes = 0
            self._from = math.inf

    def refused_too(self, refusal: Refusal) -> None:
        """An attempt sent before the latest refusal came back was refused as well."""
        if self._under_way() and refusal.sent_at >= self._from:
            self._strike()

    def passed(self, now: float, turnaround: float) -> bool:
        """Whether a leap has just turned out well: all its calls are sent, and no refusal is to be expected."""
        if self._calls_left or math.isinf(self._last_sent) or now - self._last_sent < 2 * turnaround:
            return False
        self._last_sent = math.inf
        self.in_a_row += 1
        self._after, self._refusals_left = _FIRST_AFTER, 1
        return True

    def _under_way(self) -> bool:
        return self._calls_left > 0 or not math.isinf(self._last_sent)

    def _strike(self) -> None:
        self._strikes += 1
        if self._strikes >= _STRIKES:
            self._calls_left, self._last_sent = 0, math.inf
            self.in_a_row = 0
            self._after *= 2
            self._refusals_left = self._after
