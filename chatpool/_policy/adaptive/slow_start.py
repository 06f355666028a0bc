"""The beginning: how fast calls are sent as long as nothing was refused.

Nothing limits the pace, as far as is known.
"""

from __future__ import annotations

import math

from .random_rejections import LoadTrial
from .send_log import Rejection, SendLog, SendRecord
from .states import LimitState

__all__ = ["SlowStart", "Unlimited"]


_AT_ONCE = 8  # calls in flight below which nothing is held back
_START = 300.0  # sends a second beyond these
_STEADY = 0.2  # seconds for which that is so, unless there is an answer before ...
_DOUBLES_EVERY = 0.05  # ... and then the rate doubles so often (seconds) ...
_OPEN_AFTER = 0.6  # ... until it is beyond any pool's, so long after the beginning
_CATCH_UP = 0.005  # seconds of lateness that may be made good


class SlowStart:
    """A few calls at once, more at a steady rate, then at one that doubles twenty times a second, then without limit.

    A server without a limit hardly notices; one that has a limit is found out by a few refusals instead of by one
    per worker, and one that states its limit can do so before it is reached.  The ramp is one in time, so answers
    that take long do not hold it up.

    Attributes:
        answered: to be set when there is an answer.
        open: whether nothing is held back any more.
    """

    __slots__ = ("_began", "_doubling_from", "_left", "_next", "answered", "open")

    def __init__(self) -> None:
        self.answered = False
        self.open = False
        self._began = math.inf
        self._doubling_from = math.inf
        self._next = -math.inf

    def wait(self, now: float, in_flight: int) -> float:
        """Seconds until the next attempt may be sent, with so many in flight."""
        if self.open or in_flight < _AT_ONCE:
            return 0.0
        return max(0.0, self._next - now)

    def sent(self, now: float, in_flight: int) -> None:
        """An attempt goes out, with so many others in flight."""
        if self.open:
            return
        if math.isinf(self._began):
            self._began = now
            self._doubling_from = now + _STEADY
        self.open = now - self._began > _OPEN_AFTER
        if in_flight < _AT_ONCE:
            self._next = max(self._next, now)
        elif not self.open:
            self._next = max(self._next, now - _CATCH_UP) + 1 / self._rate(now)

    def _rate(self, now: float) -> float:
        if self.answered:
            self._doubling_from = min(self._doubling_from, now)
        return _START * math.pow(2.0, max(0.0, now - self._doubling_from) / _DOUBLES_EVERY)


class Unlimited(LimitState):
    """Nothing has been refused: send, but not all at once.

    Args:
        tally: what has been sent.
    """

    def __init__(self, tally: SendLog) -> None:
        super().__init__(tally)
        self.ramp = SlowStart()

    def wait(self, now: float) -> float:
        return self.ramp.wait(now, self._tally.in_flight)

    def sent(self, now: float) -> LimitState:
        self.ramp.sent(now, self._tally.in_flight)
        return self

    def accepted(self, ticket: SendRecord, now: float) -> LimitState:
        self.ramp.answered = True
        return self

    def refused(self, refusal: Rejection, pause: float) -> LimitState:
        return LoadTrial(self._tally, refusal, pause)
