"""Slow start: how fast calls are sent as long as nothing was rejected."""

from __future__ import annotations

import math

from .random_rejections import LoadTrial
from .send_log import Rejection, SendLog, SendRecord
from .states import LimitState

__all__ = ["SlowStart", "Unlimited"]


_FREE_CALLS = 8  # with fewer in flight nothing is held back
_FIRST_PER_SECOND = 300.0  # sends beyond these
_STEADY_SECONDS = 0.2  # for which that rate stays, unless there is an answer before ...
_DOUBLING_SECONDS = 0.05  # ... and then it doubles in this time ...
_OVER_AFTER_SECONDS = 0.6  # ... until it is higher than any pool's, this long after the beginning
_CATCH_UP_SECONDS = 0.005  # a thread that wakes up late makes up for at most this


class SlowStart:
    """A few calls at once, then a steady rate, then one that doubles twenty times a second, then no limit.

    A server without a limit hardly notices; one that has a limit is found out by a few rejections instead of by one
    per worker, and one that reports its limit can do so before it is reached.  The rate depends on the time only, so
    slow answers do not delay it.

    Attributes:
        answered: to be set when there is an answer.
        is_over: True once nothing is held back any more.
    """

    __slots__ = ("_began", "_doubling_from", "_next", "answered", "is_over")

    def __init__(self) -> None:
        self.answered = False
        self.is_over = False
        self._began = math.inf
        self._doubling_from = math.inf
        self._next = -math.inf

    def wait(self, now: float, in_flight: int) -> float:
        """Return the seconds until the next attempt may be sent, with ``in_flight`` in flight."""
        if self.is_over or in_flight < _FREE_CALLS:
            return 0.0
        return max(0.0, self._next - now)

    def sent(self, now: float, in_flight: int) -> None:
        """Note that an attempt is sent, with ``in_flight`` others in flight."""
        if self.is_over:
            return
        if math.isinf(self._began):
            self._began = now
            self._doubling_from = now + _STEADY_SECONDS
        self.is_over = now - self._began > _OVER_AFTER_SECONDS
        if in_flight < _FREE_CALLS:
            self._next = max(self._next, now)
        elif not self.is_over:
            self._next = max(self._next, now - _CATCH_UP_SECONDS) + 1 / self._rate(now)

    def _rate(self, now: float) -> float:
        if self.answered:
            self._doubling_from = min(self._doubling_from, now)
        return _FIRST_PER_SECOND * math.pow(2.0, max(0.0, now - self._doubling_from) / _DOUBLING_SECONDS)


class Unlimited(LimitState):
    """Nothing has been rejected: send after a slow start.

    Args:
        send_log: what has been sent.
    """

    def __init__(self, send_log: SendLog) -> None:
        super().__init__(send_log)
        self.slow_start = SlowStart()

    def wait(self, now: float) -> float:
        return self.slow_start.wait(now, self._send_log.in_flight)

    def sent(self, now: float) -> LimitState:
        self.slow_start.sent(now, self._send_log.in_flight)
        return self

    def accepted(self, record: SendRecord, now: float) -> LimitState:
        self.slow_start.answered = True
        return self

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        return LoadTrial(self._send_log, rejection, pause)
