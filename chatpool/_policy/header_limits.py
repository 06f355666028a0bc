"""Rate limits that a server reports in the headers of its answers."""

from __future__ import annotations

import math
from typing import NamedTuple, Tuple

from .._values import StatedLimit

__all__ = ["HeaderLimit", "Overlap"]

_MINUTE_SECONDS = 60.0

# Two reports tell a limit that refills evenly from a fixed window, if they are so far apart ...
_MIN_APART_SECONDS = 1.0
_MAX_APART_SECONDS = 60.0  # ... and no further ...
_MIN_USED_SHARE = 0.2  # ... and this share of the limit is used: ...
_STANDING_SHARE = 0.25  # ... the reset of a fixed window moves by less than this share of the time between them

# Servers round: what remains down to whole units, the time to the reset up to one of these.
_ROUNDING_UNITS = 1.0
_FINE_ROUNDING_SECONDS, _COARSE_ROUNDING_SECONDS = 0.001, 1.0

# Stay a little below the server's rate, or every rounding causes a rejection ...
_MARGIN_RATIO = 0.99
# ... and keep a reserve of what refills in this time, for calls arrive some milliseconds sooner or later than others.
_RESERVE_SECONDS = 0.02
_MAX_RESERVE_SHARE = 0.05  # of the limit

# So long after the last send or report a call is sent whatever seems to remain, for that may be wrong: most limits are
# per minute.  A slower one (per day) is waited for until it has refilled for one call, 10 minutes at most.
_MAX_WAIT_SECONDS = 60.0
_MAX_WAIT_FOR_ONE_SECONDS = 600.0


class Overlap(NamedTuple):
    """Amounts sent around the attempt whose answer reports a limit, in units of the limit.

    Attributes:
        since: sent after it.
        overtaken: sent so shortly before it that the server may not have counted it.
        overtaking: sent so shortly after it that the server may have counted it.
    """

    since: float = 0.0
    overtaken: float = 0.0
    overtaking: float = 0.0


class HeaderLimit:
    """Remaining amount of a reported limit, and when it refills.

    There are two kinds: one refills evenly (the moment of the reset moves as more is used), the other is a fixed
    window.  What is sent after a report is subtracted, whether or not another report follows: rejections and broken
    connections may report nothing.

    Attributes:
        limit: units in all.
        rate: units a second that refill.
        is_fixed_window: True if all of it refills at a fixed moment.
    """

    __slots__ = (
        "_at",
        "_measured",
        "_newest_number",
        "_remaining",
        "_reported_at",
        "_reported_reset_at",
        "_reserve",
        "_reset_at",
        "is_fixed_window",
        "limit",
        "rate",
    )

    def __init__(self) -> None:
        self.limit = self.rate = math.inf
        self._measured = math.inf  # the rate, once it is more than a guess
        self.is_fixed_window = False
        self._remaining = math.inf  # at the time ``_at``
        self._at = 0.0
        self._reserve = 0.0
        self._reset_at = math.inf
        self._reported_at = self._reported_reset_at = -math.inf
        self._newest_number = -1

    def wait(self, now: float, amount: float) -> float:
        """Return the seconds until ``amount`` remains."""
        missing = min(amount + self._reserve, self.limit) - self._remaining_at(now)
        if missing <= 0:
            return 0.0
        longest = _MAX_WAIT_SECONDS
        if self.is_fixed_window:
            wait = self._reset_at - now
        else:
            wait = missing / (_MARGIN_RATIO * self.rate)
            longest = max(longest, min(amount / self.rate, _MAX_WAIT_FOR_ONE_SECONDS))
        return max(0.0, min(wait, self._at + longest - now))

    def _remaining_at(self, now: float) -> float:
        if math.isinf(self.limit):
            return math.inf  # nothing was reported yet
        if self.is_fixed_window:
            return self.limit if now >= self._reset_at else self._remaining
        return min(self.limit, self._remaining + self._refilled(now - self._at))

    def _refilled(self, seconds: float) -> float:
        """Return how much refills in ``seconds``, if there is room for it."""
        return _MARGIN_RATIO * self.rate * max(0.0, seconds)

    def sent(self, now: float, amount: float) -> None:
        """Subtract ``amount``, which is sent now."""
        self._remaining = self._remaining_at(now) - amount
        self._at = max(self._at, now)
        if self.is_fixed_window and now >= self._reset_at:
            self._reset_at = math.inf  # the end of the new window is unknown before an answer reports it

    def reported(self, reported: StatedLimit, number: int, sent_at: float, overlap: Overlap, now: float) -> None:
        """Take over a limit that the answer to attempt ``number`` reports.

        Args:
            reported: the limit.
            number: attempts sent before it; the answer to a later one is better.
            sent_at: when it was sent.
            overlap: what else was sent.
            now: the time.
        """
        if number <= self._newest_number or not reported.limit > 0:
            return
        self._newest_number = number
        expected = self._remaining_at(now)
        self._update_rate(reported, sent_at)
        self.limit = reported.limit
        reserve = min(_RESERVE_SECONDS * self.rate, _MAX_RESERVE_SHARE * self.limit)
        self._reserve = 0.0 if self.is_fixed_window else reserve
        self._at = max(self._at, now)
        least, most = self._remaining_bounds(reported.remaining, overlap, now - sent_at)
        self._remaining = least if math.isinf(expected) else max(least, min(expected, most))

    def _remaining_bounds(self, remaining: float, overlap: Overlap, seconds: float) -> Tuple[float, float]:
        """Return the least and the most that may remain ``seconds`` after a report.

        What refilled while the limit was full is lost, and how full it was when the others were sent is unknown.
        """
        refilled = 0.0 if self.is_fixed_window else self._refilled(seconds)
        least = min(self.limit, remaining + refilled) - overlap.since - overlap.overtaken
        return least, min(self.limit, remaining + refilled - overlap.since) + overlap.overtaking

    def _update_rate(self, reported: StatedLimit, sent_at: float) -> None:
        used = reported.limit - reported.remaining
        if reported.reset is not None and reported.reset > 0 and used >= 1:
            self.rate = self._measured = _within(self._measured, used, reported.reset)
            self._reset_at = sent_at + reported.reset
            if used >= _MIN_USED_SHARE * reported.limit:
                self._update_kind(sent_at)
            return
        if reported.limit != self.limit:
            self.rate, self._measured = reported.limit / _MINUTE_SECONDS, math.inf
        if sent_at >= self._reset_at:
            self._reset_at = math.inf

    def _update_kind(self, sent_at: float) -> None:
        apart = sent_at - self._reported_at
        if apart < _MIN_APART_SECONDS:
            return
        if sent_at < self._reported_reset_at:  # else either kind was reset between the two reports
            moved = abs(self._reset_at - self._reported_reset_at)
            self.is_fixed_window = apart < _MAX_APART_SECONDS and moved <= _STANDING_SHARE * apart
        self._reported_at, self._reported_reset_at = sent_at, self._reset_at


def _within(rate: float, used: float, reset: float) -> float:
    """Return ``rate`` if these rounded numbers allow for it, else the nearest rate that they allow for.

    Otherwise a small amount that refills in milliseconds would pass for a rate many times as high.
    """
    if math.isinf(rate):
        return used / reset
    rounded = _COARSE_ROUNDING_SECONDS if reset == int(reset) else _FINE_ROUNDING_SECONDS
    most = used / (reset - rounded) if reset > rounded else math.inf
    return max((used - _ROUNDING_UNITS) / (reset + rounded), min(rate, most))
