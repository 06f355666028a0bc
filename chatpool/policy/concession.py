"""Some of the places at a full server are left free for a moment, in case somebody else has few."""

from __future__ import annotations

__all__ = ["Concession"]

_SHARE = 0.2  # of the calls in flight
_RAREST = 32  # refusals from one concession to the next; there are twice as many after each that nobody used


class Concession:
    """After a refusal, how many of the calls in flight to give up for a moment.

    A full server refuses whoever comes, not whoever has most: of two pools, the one that was first would keep all
    places.  So each leaves a share of its own free.  If nobody takes them, it takes them back, and leaves some less
    often; if somebody does, it leaves more at the next refusal.  The larger one leaves more than the smaller one,
    until both have as many.

    Attributes:
        before: the calls in flight before the concession under way, 0 without one.
    """

    __slots__ = ("_every", "_refusals", "before")

    def __init__(self) -> None:
        self.before = 0
        self._every = 1
        self._refusals = 0  # since the last concession

    def taken(self, in_flight: int) -> bool:
        """Whether a refusal with so many in flight shows that somebody has taken the places."""
        return in_flight < self.before

    def refused(self, in_flight: int) -> int:
        """Refused with so many in flight; returns how many of these to give up."""
        if self.taken(in_flight):
            self._every = 1
        self.before = 0
        self._refusals += 1
        if self._refusals < self._every:
            return 0
        self._refusals = 0
        self._every = min(_RAREST, 2 * self._every)
        given = int(_SHARE * in_flight)
        if given:
            self.before = in_flight
        return given

    def over(self) -> None:
        """As many as before are in flight again, and nothing was refused."""
        self.before = 0
