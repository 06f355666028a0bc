"""Some of the places at a full server are left free for a moment, in case somebody else has few."""

from __future__ import annotations

__all__ = ["Concession"]

_SHARE = 0.1  # of the calls in flight
_RARELY = 12  # refusals from one concession to the next, so that it costs a pool alone 1 % at most ...
_OFTEN = 1  # ... and from one that somebody used to the next; twice as many after each that nobody used


class Concession:
    """After a refusal, how many of the calls in flight to give up for a moment.

    A full server refuses whoever comes, not whoever has most: of two pools, the one that was first would keep all
    places.  So each leaves a share of its own free.  If nobody takes them, it takes them back, and leaves some less
    often; if somebody does, it leaves more at the next refusal.  The larger one leaves more than the smaller one, so
    they come to have about as many.

    Attributes:
        before: the calls in flight before the concession under way, 0 without one.
        kept: how many of these were kept.
    """

    __slots__ = ("_every", "_refusals", "before", "kept")

    def __init__(self) -> None:
        self.before = self.kept = 0
        self._every = _RARELY
        self._refusals = 0  # since the last concession

    def refused(self, in_flight: int, *, others: bool = False) -> int:
        """Refused with so many in flight.

        Args:
            in_flight: calls in flight.
            others: whether the refusal is one that somebody else may have caused.

        Returns:
            How many of the calls in flight to give up.
        """
        self.over()
        if others:
            self._every = _OFTEN
        self._refusals += 1
        given = int(_SHARE * in_flight) if self._refusals >= self._every else 0
        if given:
            self._refusals = 0
            self._every = min(_RARELY, 2 * self._every)
            self.before, self.kept = in_flight, in_flight - given
        return given

    def over(self) -> None:
        """As many as before are in flight again, or will not be."""
        self.before = self.kept = 0
