"""How many failures in a row are no more than bad luck."""

from __future__ import annotations

import math

__all__ = ["Luck", "longest_series"]

_REMEMBERED = 1000.0  # attempts; what was before them counts less and less
_MOST = 4  # half of the retries that a call has by default: the others are for trouble, however much fails by chance


class Luck:
    """Knows how often attempts fail beside those that succeed, and so how many may fail in a row by chance.

    Of N attempts, each of which fails with probability p, the longest series of failures has about log(N) / log(1/p)
    of them (Erdos and Renyi, "On a new law of large numbers", 1970).  One more is granted, for that is a mean; and
    what goes beyond it was trouble, and does not count as chance the next time.
    """

    __slots__ = ("_attempts", "_failures")

    def __init__(self) -> None:
        self._attempts = 0.0
        self._failures = 0.0

    def succeeded(self, failures: int) -> None:
        """An attempt has succeeded after so many failures in a row."""
        by_chance = min(failures, self.failures_in_a_row() + 1) if failures and self._attempts else 0
        self._failures += by_chance
        self._attempts += by_chance + 1
        if self._attempts > _REMEMBERED:
            self._failures /= 2
            self._attempts /= 2

    def failures_in_a_row(self) -> int:
        """Failures that need no other explanation; none where nothing has ever succeeded."""
        if not self._attempts:
            return 0
        return min(_MOST, longest_series(self._attempts, max(self._failures, 0.5) / (self._attempts + 1)))


def longest_series(attempts: float, share: float) -> int:
    """Failures in a row that chance explains among so many attempts, of which this share fails."""
    return 1 + math.ceil(math.log(attempts) / -math.log(share))
