"""A rate of sending that stays just above what the server accepts.

Whether the rate has anything to do with the refusals: now and then a few calls are sent much faster.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, Iterator, Optional, Tuple

from .send_log import Rejection, SendLog
from .sequential_tests import ShareTest, possible_share

__all__ = ["RateController", "RateProbe"]


_LEAST = 0.1  # sends a second
_CATCH_UP = 0.005  # seconds of lateness that may be made good

# What a refusal leaves.  The server may be another pool's as well: what is given up and won back again and again ends
# up in equal shares, and the sooner the more it is.  Most buckets hold enough to make it good.
_CUT = 0.9
_LARGEST_CUT = 0.5  # at once: counts may be off by one or two
_HORIZON = 3.0  # seconds for which a refusal is remembered
_TOO_SHORT = 0.002  # seconds; two refusals closer together give no rate

# A server that asks for more than this paces its callers ...
# ... and growth waits for so many times the pause.
_HOLD = 10.0

# Growth, as a share of the rate in a unit of time (a second, or longer where refusals take long to come back).
_SEARCH = 2.0  # while nothing is known
_GROWTH = 0.10  # after a refusal; doubles with each unit of time without another ...
_FASTEST = 1.0  # ... up to this
_LARGEST_EXPONENT = 6.0

_HEADROOM = 2.0  # the rate never grows beyond so many times what is really sent ...
_HEADROOM_LEAST = 4.0  # ... and a little

# Slow senders grow by a larger share than fast ones, so that two pools on one quota come closer to each other.
_REFERENCE_RATE = 10.0
_CLOSER = 0.7  # 0 would be the same share for all, 1 as much more a second for all
_LARGEST_SHARE, _SMALLEST_SHARE = 3.0, 0.4


class RateController:
    """Sends evenly, a little faster from second to second, slower after a refusal.

    Args:
        rate: sends a second to begin with.
        last_sent: when the last attempt went out.
        now: the time.

    Attributes:
        rate: sends a second.
    """

    __slots__ = (
        "_found",
        "_grown_at",
        "_next",
        "_quiet_from",
        "_refused_at",
        "_resumed",
        "rate",
    )

    def __init__(self, rate: float, last_sent: float, now: float) -> None:
        self.rate = max(1.0, rate)
        self._next = last_sent + 1 / self.rate
        self._grown_at = self._quiet_from = now
        self._found = False  # whether a refusal has shown what the rate is
        self._resumed = -math.inf
        self._refused_at: Deque[Tuple[float, int]] = deque(maxlen=64)  # (time, accepted before) of the latest ones

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may be sent."""
        return max(0.0, self._next - now)

    def sent(self, now: float, factor: float = 1.0) -> None:
        """An attempt goes out; the next may follow ``factor`` times as soon as at the rate."""
        self._next = max(self._next, now - _CATCH_UP) + 1 / (self.rate * factor)

    # -- growing ----------------------------------------------------------------------------------------

    def grow(self, now: float, sent_lately: int, mean_rate: float, turnaround: float) -> None:
        """Let the rate rise for the time that has passed.

        Args:
            now: the time.
            sent_lately: attempts sent in the last second.
            mean_rate: attempts accepted per second over a longer time.
            turnaround: seconds until a refusal comes back; nothing grows faster than that.
        """
        passed = min(0.5, now - self._grown_at)
        self._grown_at = now
        if passed > 0 and now >= self._quiet_from and self.rate < _HEADROOM * sent_lately + _HEADROOM_LEAST:
            unit = max(1.0, 2 * turnaround)
            self.rate *= 1 + self._growth(now - self._quiet_from, mean_rate, unit) * passed / unit

    def _growth(self, quiet: float, mean_rate: float, unit: float) -> float:
        """The share of the rate by which it grows in a unit of time, after ``quiet`` seconds without a refusal."""
        if not self._found or (quiet > unit and self.rate < 0.9 * mean_rate):
            return _SEARCH
        growth = min(_FASTEST, _GROWTH * math.pow(2.0, min(_LARGEST_EXPONENT, quiet / unit)))
        return growth * min(_LARGEST_SHARE, max(_SMALLEST_SHARE, math.pow(_REFERENCE_RATE / self.rate, _CLOSER)))

    # -- being refused ----------------------------------------------------------------------------------

    def refused(self, refusal: Rejection, pause: float, turnaround: float, chance: float = 0.0) -> None:
        """The server refused, and nothing is sent for ``pause`` seconds: cut the rate to what it accepts.

        Args:
            refusal: the refusal.
            pause: seconds.
            turnaround: seconds until a refusal comes back.
            chance: the share of calls that is refused whatever the pace.
        """
        asked_long = refusal.hint is not None and pause > _LONG_PAUSE
        if chance:
            bounds = iter((self.rate * _CUT, refusal.lately / (1 - chance) + 1.0))  # one refusal proves nothing
        else:
            bounds = self._bounds(refusal, pause)
        self.rate = max(_LEAST, _LARGEST_CUT * self.rate, min(bounds))
        self._found = True
        self._note(refusal, pause)
        self._quiet_from = refusal.now + max(_HOLD * pause if asked_long else 0.0, 2 * turnaround)

    def begin(self, refusal: Rejection, pause: float) -> None:
        """This refusal showed that it is the rate; what it is, the next will show."""
        self._note(refusal, pause)
        self._quiet_from = refusal.now + pause

    def _note(self, refusal: Rejection, pause: float) -> None:
        resumed = refusal.now + pause
        self._next = max(self._next, resumed)
        self._resumed = resumed
        self._refused_at.append((resumed if pause > _LONG_PAUSE else refusal.now, refusal.accepted))

    def _bounds(self, refusal: Rejection, pause: float) -> Iterator[float]:
        yield self.rate * _CUT
        if refusal.sent_at - self._resumed >= 1:  # a second without a pause: what it accepted is its rate
            yield refusal.lately + 1.0
        yield from self._refilled(refusal, pause)

    def _refilled(self, refusal: Rejection, pause: float) -> Iterator[float]:
        """Between two refusals the server refilled at most what it accepted, and one."""
        known = self._refused_at
        if pause > _LONG_PAUSE:
            known.clear()  # how long the pause is says more than how long ago the others were
        while known and known[0][0] < refusal.sent_at - _HORIZON:
            known.popleft()
        for time, accepted in known:
            if refusal.sent_at - time > _TOO_SHORT:
                yield (max(0, refusal.accepted - accepted) + 1) / (refusal.sent_at - time)


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


class RateProbe:
    """Tries a multiple of the rate on a few calls, after some refusals.

    A server that limits the rate has just shown that it has nothing left, so it refuses most of them.

    Args:
        tally: what has been sent.
    """

    FACTOR = 3.0

    def __init__(self, tally: SendLog) -> None:
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

    def refused(self, refusal: Rejection, rate: float, pause: float) -> bool:
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
