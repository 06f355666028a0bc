"""The one clock that chatpool reads and waits by.  Tests put another one in its place."""

from __future__ import annotations

import threading
import time
from typing import Optional

__all__ = ["Clock", "current_clock", "install_clock"]


class Clock:
    """Monotonic time and interruptible waiting.  Subclass it to control both (see ``chatpool.testing.FakeClock``)."""

    def now(self) -> float:
        """Seconds on a monotonic scale with an arbitrary origin."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch; only for dates that a server sent or that a person reads."""
        return time.time()

    def wait(self, condition: threading.Condition, seconds: Optional[float] = None) -> bool:
        """Wait on ``condition`` (whose lock is held) until notified or for ``seconds``; False after a time-out."""
        return condition.wait(seconds)


_current = Clock()


def current_clock() -> Clock:
    """The clock that pools made from now on will use."""
    return _current


def install_clock(clock: Clock) -> Clock:
    """Make ``clock`` the one that pools made from now on will use; returns the one it replaces."""
    global _current
    previous, _current = _current, clock
    return previous
