"""The limits that a server states in the headers of its answers."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

__all__ = ["LearnedLimit", "StatedLimit"]

_MINUTE = 60.0

# Whether a limit flows back or is given anew at once is told from two statements so far apart (seconds) ...
_APART = 1.0
_FAR_APART = 60.0  # further apart they tell nothing
_USED_TO_TELL = 0.2  # ... with so much of the limit used ...
_STANDS_STILL = 0.25  # ... by whether the moment of the reset moves, as a share of the time between them

# Stay a little below the server's rate, or every rounding draws a refusal ...
_MARGIN = 0.99
# ... and keep a little of what flows back, for calls arrive some milliseconds sooner or later than others do.
_JITTER = 0.02  # seconds' worth
_LARGEST_RESERVE = 0.05  # of the limit


class StatedLimit(NamedTuple):
    """What a server says about one of its limits.

    Attributes:
        limit: units in all.
        remaining: units that were left.
        reset: seconds until all are there again, None where it does not say.
    """

    limit: float
    remaining: float
    reset: Optional[float] = None


class LearnedLimit:
    """How much of a stated limit is left, and how it comes back.

    Two kinds are told apart: what flows back evenly (the moment of the reset moves as more is used), and what is
    given anew at a fixed moment.

    Attributes:
        limit: units in all.
        rate: units a second that come back.
        at_once: whether all of it is given anew at a fixed moment.
    """

    __slots__ = (
        "_at",
        "_left",
        "_newest",
        "_reserve",
        "_reset_at",
        "_spent",
        "_told_at",
        "_told_reset",
        "at_once",
        "limit",
        "rate",
    )

    def __init__(self) -> None:
        self.limit = self.rate = math.inf
        self.at_once = False
        self._left = math.inf  # at the time ``_at``, when ``_spent`` had been spent
        self._at = 0.0
        self._spent = self._reserve = 0.0
        self._reset_at = math.inf
        self._told_at = self._told_reset = -math.inf
        self._newest = -1

    def wait(self, now: float, amount: float, spent: float) -> float:
        """Seconds until ``amount`` is left; ``spent`` is what has been sent by now, since the first send."""
        missing = min(amount + self._reserve, self.limit) - self._left_at(now) + (spent - self._spent)
        if missing <= 0:
            return 0.0
        return max(0.0, self._reset_at - now) if self.at_once else missing / (_MARGIN * self.rate)

    def _left_at(self, now: float) -> float:
        if self.at_once:
            return self.limit if now >= self._reset_at else self._left
        return min(self.limit, self._left + _MARGIN * self.rate * max(0.0, now - self._at))

    def stated(self, stated: StatedLimit, number: int, spent: float, sent_at: float) -> None:
        """The answer to attempt ``number`` says this.

        Args:
            stated: what it says.
            number: attempts sent before it; the answer to a later one says it all better.
            spent: what had been sent with it, since the first send.
            sent_at: when it was sent.
        """
        if number <= self._newest or not stated.limit > 0:
            return
        self._newest = number
        self._learn_rate(stated, sent_at)
        self.limit = stated.limit
        self._reserve = 0.0 if self.at_once else min(_JITTER * self.rate, _LARGEST_RESERVE * self.limit)
        self._left, self._at, self._spent = stated.remaining, sent_at, spent

    def _learn_rate(self, stated: StatedLimit, sent_at: float) -> None:
        used = stated.limit - stated.remaining
        if stated.reset is not None and stated.reset > 0 and used >= 1:
            self.rate = used / stated.reset
            self._reset_at = sent_at + stated.reset
            if used >= _USED_TO_TELL * stated.limit:
                self._learn_kind(sent_at)
        elif stated.limit != self.limit:
            self.rate = stated.limit / _MINUTE

    def _learn_kind(self, sent_at: float) -> None:
        apart = sent_at - self._told_at
        if apart >= _APART:
            self.at_once = apart < _FAR_APART and abs(self._reset_at - self._told_reset) <= _STANDS_STILL * apart
            self._told_at, self._told_reset = sent_at, self._reset_at
