"""The clock that chatpool reads and waits by.  Tests install another one in its place."""

from __future__ import annotations

import threading
import time
from typing import Optional

__all__ = ["Clock", "current_clock", "install_clock"]


class Clock:
    """Monotonic time and interruptible waiting.  Subclass it to control both (see ``chatpool.testing.FakeClock``)."""

    def now(self) -> float:
        """Return the seconds on a monotonic scale with an arbitrary origin."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the seconds since the epoch; only for dates that a server sent or that a person reads."""
        return time.time()

    def wait(self, condition: threading.Condition, seconds: Optional[float] = None) -> bool:
        """Wait on ``condition`` (whose lock is held) until notified or for ``seconds``, or for less.

        Callers check their condition again, and wait again where it does not hold.

        Returns:
            False when it was not notified.
        """
        return condition.wait(interruptible(seconds))


def interruptible(seconds: Optional[float]) -> Optional[float]:
    """Return how long to wait at a time: all of ``seconds``, but in the main thread a quarter of a second at most.

    CPython loses a Ctrl-C that comes after its last look for signals and before a lock blocks.  With many
    busy threads the main thread spends milliseconds there, waiting for the interpreter.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return seconds
    return _SIGNAL_CHECK_SECONDS if seconds is None else min(seconds, _SIGNAL_CHECK_SECONDS)


_SIGNAL_CHECK_SECONDS = 0.25
_current = Clock()


def current_clock() -> Clock:
    """Return the clock that pools made from now on will use."""
    return _current


def install_clock(clock: Clock) -> Clock:
    """Make ``clock`` the one that pools made from now on will use; returns the one it replaces."""
    global _current
    previous, _current = _current, clock
    return previous
