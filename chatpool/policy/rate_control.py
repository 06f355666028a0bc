"""A rate of sending that stays just above what the server accepts."""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, Iterator, Tuple

from .tally import Refusal

__all__ = ["RateControl"]

_LEAST = 0.1  # sends a second
_CATCH_UP = 0.005  # seconds of lateness that may be made good

# What a refusal leaves.  The server may be another pool's as well: what is given up and won back again and again ends
# up in equal shares, and the sooner the more it is.  Most buckets hold enough to make it good.
_CUT = 0.9
_LARGEST_CUT = 0.5  # at once: counts may be off by one or two
_HORIZON = 3.0  # seconds for which a refusal is remembered
_TOO_SHORT = 0.002  # seconds; two refusals closer together give no rate

# A server that asks for more than this paces its callers ...
_LONG_PAUSE = 0.25
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


class RateControl:
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

    def refused(self, refusal: Refusal, pause: float, turnaround: float, chance: float = 0.0) -> None:
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

    def begin(self, refusal: Refusal, pause: float) -> None:
        """This refusal showed that it is the rate; what it is, the next will show."""
        self._note(refusal, pause)
        self._quiet_from = refusal.now + pause

    def _note(self, refusal: Refusal, pause: float) -> None:
        resumed = refusal.now + pause
        self._next = max(self._next, resumed)
        self._resumed = resumed
        self._refused_at.append((resumed if pause > _LONG_PAUSE else refusal.now, refusal.accepted))

    def _bounds(self, refusal: Refusal, pause: float) -> Iterator[float]:
        yield self.rate * _CUT
        if refusal.sent_at - self._resumed >= 1:  # a second without a pause: what it accepted is its rate
            yield refusal.lately + 1.0
        yield from self._refilled(refusal, pause)

    def _refilled(self, refusal: Refusal, pause: float) -> Iterator[float]:
        """Between two refusals the server refilled at most what it accepted, and one."""
        known = self._refused_at
        if pause > _LONG_PAUSE:
            known.clear()  # how long the pause is says more than how long ago the others were
        while known and known[0][0] < refusal.sent_at - _HORIZON:
            known.popleft()
        for time, accepted in known:
            if refusal.sent_at - time > _TOO_SHORT:
                yield (max(0, refusal.accepted - accepted) + 1) / (refusal.sent_at - time)
