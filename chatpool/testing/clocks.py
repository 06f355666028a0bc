"""Clocks for tests, to be installed instead of the real one (:func:`chatpool.clock.install_clock`)."""

from __future__ import annotations

import threading
import time
from typing import Dict, List, NamedTuple, Optional

from ..clock import Clock
from ..errors import ConfigurationError

__all__ = ["FakeClock", "InstantClock"]


class _Waiter(NamedTuple):
    due: float
    condition: threading.Condition


class _Waiters:
    """The waiting threads' conditions, and the moments until which they wait.  Its owner does the locking."""

    def __init__(self) -> None:
        self._waiters: Dict[int, _Waiter] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def enter(self, due: float, condition: threading.Condition) -> int:
        self._next += 1
        self._waiters[self._next] = _Waiter(due, condition)
        return self._next

    def leave(self, ticket: int) -> None:
        del self._waiters[ticket]

    def earliest(self) -> Optional[float]:
        return min((waiter.due for waiter in self._waiters.values()), default=None)

    def due_at(self, now: float) -> List[threading.Condition]:
        return [waiter.condition for waiter in self._waiters.values() if waiter.due <= now]


class FakeClock(Clock):
    """A clock whose time moves only by :meth:`advance`.

    Args:
        start: the first value of :meth:`now`, in seconds.
        wall: the first value of :meth:`wall`, in seconds since the epoch.

    Example, a pool that waits a minute in no time::

        clock = FakeClock()
        previous = install_clock(clock)
        try:
            with FakeServer(script=[RateLimited(60)]) as server:
                pool = ChatPool("any-model", base_url=server.base_url)
                future = pool.submit("ping")
                clock.until_waiting()       # the pool has been refused, and waits
                clock.advance(61)
                assert future.result().text == "ping"
        finally:
            install_clock(previous)

    The operating system's time goes on: timeouts of sockets, delays of a :class:`FakeServer`.
    """

    def __init__(self, start: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self._changed = threading.Condition()
        self._now = float(start)
        self._wall_offset = wall - self._now
        self._waiters = _Waiters()

    def now(self) -> float:
        """Return ``start`` and the seconds that the clock was advanced by."""
        with self._changed:
            return self._now

    def wall(self) -> float:
        """Return seconds since the epoch; they move together with :meth:`now`."""
        return self.now() + self._wall_offset

    def wait(self, condition: threading.Condition, seconds: Optional[float] = None) -> bool:
        """Wait on ``condition`` (whose lock is held) until notified, or until the clock was advanced by ``seconds``.

        Returns:
            False when the time has come, else True.  As with any condition, look again at what you wait for:
            an advance that is due for another thread on the same condition wakes this one too.
        """
        if seconds is None:
            return condition.wait()
        with self._changed:
            due = self._now + seconds
            if seconds <= 0:
                return False
            ticket = self._waiters.enter(due, condition)
            self._changed.notify_all()
        try:
            # No wake-up is lost before this wait begins: advance() needs the condition's lock to notify.
            condition.wait()
        finally:
            with self._changed:
                self._waiters.leave(ticket)
                self._changed.notify_all()
        return self.now() < due

    def advance(self, seconds: float) -> None:
        """Move the time forward, and wake every thread whose wait has ended by it.

        Call it without holding the lock of a condition that others wait on.

        Raises:
            ConfigurationError: ``seconds`` is negative.
        """
        if not seconds >= 0:
            raise ConfigurationError(f"time cannot move by {seconds!r} seconds")
        with self._changed:
            self._now += seconds
            due = self._waiters.due_at(self._now)
        for condition in due:
            with condition:
                condition.notify_all()

    @property
    def waiting(self) -> int:
        """The number of threads that wait for time to pass (those that wait without a limit are not counted)."""
        with self._changed:
            return len(self._waiters)

    @property
    def next_due(self) -> Optional[float]:
        """The seconds to :meth:`advance` by until the first of the waiting threads wakes; None when none waits."""
        with self._changed:
            earliest = self._waiters.earliest()
            return None if earliest is None else max(0.0, earliest - self._now)

    def until_waiting(self, threads: int = 1, timeout: float = 10.0) -> None:
        """Block until ``threads`` threads wait for time to pass.

        Raises:
            TimeoutError: they do not within ``timeout`` real seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiters) >= threads, timeout):
                raise TimeoutError(f"waited {timeout:g} s for {threads} waiting threads; {len(self._waiters)} wait")


class InstantClock(Clock):
    """A clock that skips waits: real time, plus the time that was skipped.

    A thread that waits for a moment first really waits for ``grace`` seconds, in which others may notify it.  If
    none does, and no other thread waits for an earlier moment, the clock is put forward to that moment.  So back-off
    and ``Retry-After`` take next to no time, and events keep their order.

    Args:
        grace: seconds of real time in which a wait can be ended by a notification before it is skipped.
        longest: waits for longer than this are not skipped: they are limits, such as the time a whole call may
            take (``Timeout.attempt`` is 600 s, ``total`` 1800 s unless given), and no back-off.

    A short limit is skipped like any wait: with ``Timeout(total=3)`` and a server that takes its time, the
    three seconds may be over at once.  That is what a test of the limit wants, and what other tests avoid by
    leaving the limit long.
    """

    def __init__(self, grace: float = 0.005, longest: float = 500.0) -> None:
        self._lock = threading.Lock()
        self._grace = grace
        self._longest = longest
        self._skipped = 0.0
        self._waiters = _Waiters()

    @property
    def skipped(self) -> float:
        """Seconds that were skipped so far."""
        with self._lock:
            return self._skipped

    def now(self) -> float:
        """Return real monotonic seconds, plus those that were skipped."""
        return time.monotonic() + self.skipped

    def wall(self) -> float:
        """Return real seconds since the epoch, plus those that were skipped."""
        return time.time() + self.skipped

    def wait(self, condition: threading.Condition, seconds: Optional[float] = None) -> bool:
        """Wait on ``condition`` (whose lock is held) until notified or until ``seconds`` have been skipped.

        Returns:
            False when the time has come, else True.
        """
        if seconds is None or seconds > self._longest:
            return condition.wait(seconds)
        if seconds <= 0:
            return False
        with self._lock:
            due = time.monotonic() + self._skipped + seconds
            ticket = self._waiters.enter(due, condition)
        try:
            while not self._reached(due):
                if condition.wait(min(self._grace, max(0.0, due - self.now()))):
                    return True
                self._skip_to(due)
            return False
        finally:
            with self._lock:
                self._waiters.leave(ticket)

    def _reached(self, due: float) -> bool:
        return self.now() >= due

    def _skip_to(self, due: float) -> None:
        with self._lock:
            missing = due - (time.monotonic() + self._skipped)
            if missing > 0 and due == self._waiters.earliest():
                self._skipped += missing
