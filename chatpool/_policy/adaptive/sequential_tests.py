"""Sequential tests on the share of calls that is rejected, which show if rejections depend on the load.

Wald's sequential probability ratio test, and Page's CUSUM for a change that may come at any time.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import List

__all__ = ["OVERLIMIT_SHARE", "BackgroundRate", "ShareTest", "SurgeTest", "possible_share"]

_MIN_CHANCE_SHARE, _MAX_CHANCE_SHARE = 0.03, 0.4  # of all calls, rejected at random
OVERLIMIT_SHARE = 0.85  # of all calls, rejected by a server far beyond its limit

# Rejections are no longer random when this ratio of their share, and this margin more, is rejected ...
_SURGE_MARGIN_SHARE, _SURGE_RATIO = 0.1, 1.25
_SURGE_LOG_ODDS = 3.3  # ... at these odds
_SURGE_REJECTIONS = 32  # the latest ones, in which a surge shows
_SAMPLE_REJECTIONS = 5.0  # expected ones after which the share is measured


def possible_share(share: float) -> float:
    """Return ``share``, or the nearest share of calls that a server may reject at random."""
    return min(_MAX_CHANCE_SHARE, max(_MIN_CHANCE_SHARE, share))


class ShareTest:
    """Likelihood of one share of rejections against another, after the calls seen.

    Rejections come back sooner than answers.  So a call counts as accepted as soon as one that was sent after it has
    been rejected, or when it has been out for long enough; it is corrected if it turns out to be rejected.

    Args:
        usual: the share of rejections under the first hypothesis, between 0 and 1.
        other: the share under the second.
        first: the number of the first call that counts.

    Attributes:
        log_odds: logarithm of the likelihood ratio; positive in favour of the second hypothesis.
        rejected: calls that were rejected.
        seen: calls that were rejected or count as accepted.
    """

    __slots__ = ("_accepted", "_first", "_rejected", "log_odds", "rejected", "seen")

    def __init__(self, usual: float, other: float, first: int) -> None:
        self._accepted = math.log((1 - other) / (1 - usual))
        self._rejected = math.log(other / usual)
        self._first = first
        self.log_odds = 0.0
        self.seen = self.rejected = 0

    @property
    def share(self) -> float:
        """Share of the calls seen that was rejected."""
        return self.rejected / max(1, self.seen)

    def accepted_before(self, number: int) -> None:
        """Count calls with smaller numbers as accepted, except those that were rejected."""
        calls = number - self._first - self.seen
        if calls > 0:
            self.seen += calls
            self.log_odds += calls * self._accepted

    def reject(self, number: int) -> None:
        """Note that the call with this number was rejected; those before the first do not count."""
        if number < self._first:
            return
        self.rejected += 1
        if number - self._first >= self.seen:
            self.accepted_before(number)
            self.seen += 1
            self.log_odds += self._rejected
        else:
            self.log_odds += self._rejected - self._accepted


class SurgeTest(ShareTest):
    """Share test for a change that may come at any time: calls from before the change do not count.

    Attributes:
        log_odds: of the stretch of calls, up to the latest one seen, that speaks most for the second hypothesis.
        best_log_odds: of any stretch: where rejections take as long as answers, the latest calls are still in flight,
            and would count as accepted.
    """

    __slots__ = ("_numbers", "best_log_odds")

    def __init__(self, usual: float, other: float, first: int) -> None:
        super().__init__(usual, other, first)
        self.best_log_odds = 0.0
        self._numbers: List[int] = []  # of the latest calls that were rejected, in order

    def accepted_before(self, number: int) -> None:
        self.seen = max(self.seen, number - self._first)

    def reject(self, number: int) -> None:
        if number < self._first:
            return
        self.rejected += 1
        self.seen = max(self.seen, number - self._first + 1)
        numbers = self._numbers
        insort(numbers, number)
        if len(numbers) > _SURGE_REJECTIONS:
            del numbers[0]
        self.log_odds = self.best_log_odds = value = stretch = 0.0
        after = self._first + self.seen
        for rejected in reversed(numbers):
            accepted = (after - rejected - 1) * self._accepted
            value += accepted + self._rejected
            self.log_odds = max(self.log_odds, value)
            stretch = max(0.0, stretch + accepted) + self._rejected
            self.best_log_odds = max(self.best_log_odds, stretch)
            after = rejected

    def restart(self) -> None:
        """Forget what has been seen."""
        self._first += self.seen
        self.seen = self.rejected = 0
        self.log_odds = self.best_log_odds = 0.0
        self._numbers.clear()


class BackgroundRate:
    """Random rejections beside those of a limit.

    Args:
        share: the share of all calls that is rejected at random.
        first: the number of the first call from now on.

    Attributes:
        share: as it was given.
    """

    __slots__ = ("_current_share", "_first", "_rejected", "_test", "share")

    def __init__(self, share: float, first: int) -> None:
        self.share = share
        self._begin(share, first)

    def _begin(self, share: float, first: int) -> None:
        self._current_share, self._first, self._rejected = share, first, 0
        self._test = SurgeTest(share, _SURGE_MARGIN_SHARE + _SURGE_RATIO * share, first)

    def explains(self, number: int) -> bool:
        """Return True if the rejection of the call with this number was to be expected.

        The share may be smaller than it was given, and is measured; what is more is due to a limit.
        """
        test = self._test
        test.reject(number)
        self._rejected += 1
        surge = test.log_odds >= _SURGE_LOG_ODDS
        if surge:
            test.restart()
        seen = number + 1 - self._first
        if seen * self._current_share > _SAMPLE_REJECTIONS:
            measured = (self._rejected / seen + self._current_share) / 2
            self._begin(min(self.share, max(_MIN_CHANCE_SHARE / 2, measured)), number + 1)
        return not surge
