"""A gate before a server that is down: nothing fresh is sent, one probe at a time looks whether it is back."""

from __future__ import annotations

import math
from typing import Optional

__all__ = ["OutageGate"]

# How many failures in a row mean that the server is down: some, and more the more calls were in flight at once.
# Measured: 0-2 false closings at 20-50 % random failures; tighter thresholds closed hundreds of times.
_FAILURES = 10
_FAILURES_PER_CALL_IN_FLIGHT = 1.5

_FIRST_PROBE = 0.25  # seconds after closing; then twice as long each time
_PROBE_EVERY = 1.0  # the longest pause between probes

_FAILED = frozenset({"timeout", "unavailable"})


class OutageGate:
    """Closes after many failures in a row, opens at the first success.

    A failure is a connection error, a time-out or a 5xx.  Only the success of an attempt that was sent after the
    first failure of the streak ends it: one sent earlier says nothing about the server now.

    Not thread-safe: the caller holds the lock.

    Attributes:
        closed: whether only probes go out.
        down_since: when the streak's first failure was sent, None without a streak.
        in_flight: attempts under way.
    """

    __slots__ = (
        "_closed_at",
        "_held",
        "_peak",
        "_probe_at",
        "_probe_out",
        "_probe_pause",
        "_streak",
        "_threshold",
        "closed",
        "down_since",
        "in_flight",
    )

    def __init__(self) -> None:
        self.closed = False
        self.down_since: Optional[float] = None
        self.in_flight = 0
        self._peak = 0
        self._streak = 0
        self._threshold = 0.0
        self._closed_at = 0.0
        self._held = 0.0
        self._probe_at = 0.0
        self._probe_out = False
        self._probe_pause = _FIRST_PROBE

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may be sent; 0 for now, ``inf`` while a probe is out."""
        if not self.closed:
            return 0.0
        return math.inf if self._probe_out else max(0.0, self._probe_at - now)

    def held(self, now: float) -> float:
        """Seconds the gate has been closed, since it was made."""
        return self._held + (now - self._closed_at if self.closed else 0.0)

    def sent(self) -> None:
        """An attempt goes out."""
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        self._probe_out = self.closed

    def returned(self, kind: str, sent_at: float, now: float, down: Optional[bool] = None) -> None:
        """An attempt that went out at ``sent_at`` has ended with a verdict of this kind."""
        self.in_flight -= 1
        if kind in _FAILED:
            self._failed(sent_at, now, down)
        elif kind == "success":
            self._succeeded(sent_at, now)
        elif self.closed and sent_at >= self._closed_at:
            # Refused, or given up: it tells neither way, and the next probe may go at once.
            self._probe_out = False

    def _failed(self, sent_at: float, now: float, down: Optional[bool]) -> None:
        if self.closed:
            if sent_at >= self._closed_at:
                self._next_probe(now)
            return
        if self._streak == 0:
            self.down_since = sent_at
            self._threshold = _FAILURES + _FAILURES_PER_CALL_IN_FLIGHT * self._peak
            self._peak = self.in_flight + 1  # the peak that counts is a recent one
        self._streak += 1
        if down if down is not None else self._streak >= self._threshold:
            self.closed, self._closed_at = True, now
            self._probe_out, self._probe_pause = False, _FIRST_PROBE
            self._probe_at = now + self._probe_pause

    def _next_probe(self, now: float) -> None:
        self._probe_out = False
        self._probe_pause = min(_PROBE_EVERY, 2 * self._probe_pause)
        self._probe_at = now + self._probe_pause

    def _succeeded(self, sent_at: float, now: float) -> None:
        if self.down_since is not None and sent_at < self.down_since:
            return
        self._streak, self.down_since = 0, None
        if self.closed:
            self._held += now - self._closed_at
            self.closed = self._probe_out = False
