"""Whether the rate has anything to do with the refusals: now and then a few calls are sent much faster."""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, Optional, Tuple

from .evidence import ShareTest, possible_share
from .tally import Refusal, Tally

__all__ = ["Leap"]

_FIRST_AFTER = 4.0  # refusals; one after a leap that was passed ...
_RARER = 4.0  # ... and so many times as many after each that failed
_LONG_PAUSE = 0.25  # seconds; a leap that fails costs another such pause ...
_WORTH_OF_LONG_PAUSE = 0.34  # ... so a refusal with it counts less ...
_HARDLY = 0.3  # ... but for one at less than this share of what was accepted on average

_FEWEST_CALLS, _MOST_CALLS = 8, 20  # of a leap
_PASSED = -3.0  # logarithm of the odds that it is the rate ...
_FAILED = 2.0  # ... with which a leap is over
_STRIKES = 2  # refusals without which it has not failed: one may be chance
_SETTLED = 2.0  # times as long as a refusal takes

# Where a leap is passed, what was refused at far lower rates was refused by chance, if it was so often.
_FAR_BELOW = 0.6
_OFTEN = 8
_REMEMBERED = 16


class Leap:
    """Tries a multiple of the rate on a few calls, after some refusals.

    A server that limits the rate has just shown that it has nothing left, so it refuses most of them.

    Args:
        tally: what has been sent.
    """

    FACTOR = 3.0

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._began, self._refused = tally.sent, tally.refused
        self._after = self._refusals_left = _FIRST_AFTER
        self._test: Optional[ShareTest] = None  # while a leap is under way
        self._first = 0
        self._rate = 0.0
        self._marked = (tally.sent, tally.refused)
        # From one refusal to the next: the rate, and what was sent and refused.
        self._stretches: Deque[Tuple[float, int, int]] = deque(maxlen=_REMEMBERED)

    def factor(self) -> float:
        """How many times as soon as usual the next call may follow."""
        leaping = self._test is not None and self._tally.sent - self._first < _MOST_CALLS
        return self.FACTOR if leaping else 1.0

    def refused(self, refusal: Refusal, rate: float, pause: float) -> bool:
        """An attempt was refused at this rate; returns whether it belongs to a leap that has not failed."""
        if self._test is not None and refusal.number >= self._first:
            self._test.refuse(refusal.number)
            failed = self._test.refused >= _STRIKES and self._test.value >= _FAILED
            if failed:
                self._end(passed=False)
            return not failed
        if refusal.number >= self._marked[0]:
            self._note(rate)
        if self._test is None:
            usual = pause <= _LONG_PAUSE or rate < _HARDLY * self._tally.mean_rate(refusal.now)
            self._refusals_left -= 1.0 if usual else _WORTH_OF_LONG_PAUSE
            if self._refusals_left <= 0:
                self._begin(rate, pause)
        return False

    def _note(self, rate: float) -> None:
        """A stretch ends; refusals of what was sent in it that come back later are no new one."""
        tally, (sent, refused) = self._tally, self._marked
        self._stretches.append((rate, tally.sent - sent, max(1, tally.refused - refused)))
        self._marked = (tally.sent, tally.refused)

    def _begin(self, rate: float, pause: float) -> None:
        """The next calls are a leap; what the pause refills is no part of it."""
        tally = self._tally
        share = possible_share((tally.refused - self._refused + 0.5) / (tally.sent - self._began + 5))
        self._rate = rate
        self._first = tally.sent + math.ceil(rate * pause)
        self._test = ShareTest(share, 1 - (1 - share) / self.FACTOR, self._first)

    def _end(self, *, passed: bool) -> None:
        self._test = None
        self._marked = (self._tally.sent, self._tally.refused)
        self._after = 1.0 if passed else self._after * _RARER
        self._refusals_left = self._after

    def passed(self, now: float) -> float:
        """The rate at which a leap has just turned out well, 0 without one."""
        test = self._test
        if test is None:
            return 0.0
        test.accepted_before(self._tally.sent_by(now - _SETTLED * self._tally.turnaround))
        passed = test.seen >= _FEWEST_CALLS and test.value <= _PASSED
        if passed or test.seen >= _MOST_CALLS:
            self._end(passed=passed)
        return self.FACTOR * self._rate if passed else 0.0

    def chance(self, rate: float) -> float:
        """The share of calls that is refused by chance, where this rate is accepted; 0 where that is not known."""
        low = [(sent, refused) for at, sent, refused in self._stretches if at <= _FAR_BELOW * rate]
        if len(low) < _OFTEN:
            return 0.0
        return possible_share(sum(refused for _, refused in low) / max(1, sum(sent for sent, _ in low)))
