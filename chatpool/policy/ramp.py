"""The beginning: how fast calls are sent as long as nothing was refused."""

from __future__ import annotations

__all__ = ["Ramp"]

_AT_ONCE = 8  # sends that nothing holds back
_START = 300.0  # sends a second after these
_DOUBLES_EVERY = 0.1  # seconds
_OPEN_AFTER = 0.6  # seconds; by then the rate is beyond any pool's
_CATCH_UP = 0.005  # seconds of lateness that may be made good


class Ramp:
    """Some sends at once, then a rate that doubles ten times a second, then no limit.

    A server without a limit hardly notices; one that has a limit is found out by a few refusals instead of by one
    per worker.  The ramp is one in time, so answers that take long do not hold it up.
    """

    __slots__ = ("_began", "_left", "_next", "open")

    def __init__(self) -> None:
        self._began = 0.0
        self._left = _AT_ONCE
        self._next = 0.0
        self.open = False  # whether nothing is held back any more

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may be sent."""
        if self.open or self._left > 0:
            return 0.0
        return max(0.0, self._next - now)

    def sent(self, now: float) -> None:
        """An attempt goes out."""
        if self._left > 0:
            self._began = now if self._left == _AT_ONCE else self._began
            self._left -= 1
            self._next = now
        elif not self.open:
            age = now - self._began
            self.open = age > _OPEN_AFTER
            if not self.open:
                rate = _START * 2.0 ** (age / _DOUBLES_EVERY)
                self._next = max(self._next, now - _CATCH_UP) + 1 / rate
