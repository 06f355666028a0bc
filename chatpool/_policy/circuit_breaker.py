"""A gate before a server that is down: nothing fresh is sent, one probe at a time looks whether it is back.

An endpoint that rejects every call for good is left alone, and asked again now and then.

Rejections that many calls meet in the same words, where no call has ever succeeded: no further call will.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Hashable, Optional, Set

from ..errors import ChatPoolError

__all__ = ["CircuitBreaker", "CommonRejections", "CredentialBreaker", "EndpointHealth"]


# How many failures in a row mean that the server is down: some, and more the more calls were in flight at once.
# Measured: 0-2 false closings at 20-50 % random failures; tighter thresholds closed hundreds of times.
_FAILURES_TO_OPEN = 10
_FAILURES_PER_CALL_IN_FLIGHT = 1.5

_FIRST_PROBE_SECONDS = 0.25  # seconds after closing; then twice as long each time
_MAX_PROBE_SECONDS = 1.0  # the longest pause between probes

_FAILURE_KINDS = frozenset({"timeout", "unavailable"})


class CircuitBreaker:
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
        "_consecutive_failures",
        "_failure_threshold",
        "_half_open",
        "_open_seconds",
        "_opened_at",
        "_peak_in_flight",
        "_probe_at",
        "_probe_pause",
        "down_since",
        "in_flight",
        "is_open",
    )

    def __init__(self) -> None:
        self.is_open = False
        self.down_since: Optional[float] = None
        self.in_flight = 0
        self._peak_in_flight = 0
        self._consecutive_failures = 0
        self._failure_threshold = 0.0
        self._opened_at = 0.0
        self._open_seconds = 0.0
        self._probe_at = 0.0
        self._half_open = False
        self._probe_pause = _FIRST_PROBE_SECONDS

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may be sent; 0 for now, ``inf`` while a probe is out."""
        if not self.is_open:
            return 0.0
        return math.inf if self._half_open else max(0.0, self._probe_at - now)

    def total_open_seconds(self, now: float) -> float:
        """Seconds the gate has been closed, since it was made."""
        return self._open_seconds + (now - self._opened_at if self.is_open else 0.0)

    def sent(self) -> None:
        """An attempt goes out."""
        self.in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self.in_flight)
        self._half_open = self.is_open

    def returned(self, kind: str, sent_at: float, now: float, down: Optional[bool] = None) -> None:
        """An attempt that went out at ``sent_at`` has ended with a verdict of this kind."""
        self.in_flight -= 1
        if kind in _FAILURE_KINDS:
            self._failed(sent_at, now, down)
        elif kind == "success":
            self._succeeded(sent_at, now)
        elif self.is_open and sent_at >= self._opened_at:
            # Rejected, or given up: it tells neither way, and the next probe may go at once.
            self._half_open = False

    def _failed(self, sent_at: float, now: float, down: Optional[bool]) -> None:
        if self.is_open:
            if sent_at >= self._opened_at:
                self._next_probe(now)
            return
        if self._consecutive_failures == 0:
            self.down_since = sent_at
            self._failure_threshold = _FAILURES_TO_OPEN + _FAILURES_PER_CALL_IN_FLIGHT * self._peak_in_flight
            self._peak_in_flight = self.in_flight + 1  # the peak that counts is a recent one
        self._consecutive_failures += 1
        if down if down is not None else self._consecutive_failures >= self._failure_threshold:
            self.is_open, self._opened_at = True, now
            self._half_open, self._probe_pause = False, _FIRST_PROBE_SECONDS
            self._probe_at = now + self._probe_pause

    def _next_probe(self, now: float) -> None:
        self._half_open = False
        self._probe_pause = min(_MAX_PROBE_SECONDS, 2 * self._probe_pause)
        self._probe_at = now + self._probe_pause

    def _succeeded(self, sent_at: float, now: float) -> None:
        if self.down_since is not None and sent_at < self.down_since:
            return
        self._consecutive_failures, self.down_since = 0, None
        if self.is_open:
            self._open_seconds += now - self._opened_at
            self.is_open = self._half_open = False


# A key is put right, or credit bought, by a person: nobody is that fast, and a probe costs a call its time.
_FIRST_EJECTION_SECONDS = 60.0  # seconds, then twice as long each time
_MAX_EJECTION_SECONDS = 600.0


class CredentialBreaker:
    """Trips at a rejection that holds for every call (a wrong key, no credit), and lets one call at a time try again.

    Only used where calls can go to another endpoint instead.

    Not thread-safe: the caller holds the lock.

    Attributes:
        reason: the rejection, None while calls may be sent.
    """

    __slots__ = ("_half_open", "_pause", "_probe_at", "_tripped_at", "reason")

    def __init__(self) -> None:
        self.reason: Optional[ChatPoolError] = None
        self._pause = 0.0
        self._tripped_at = self._probe_at = -math.inf
        self._half_open = False

    def trip(self, reason: ChatPoolError, sent_at: float, now: float) -> bool:
        """A call that went out at ``sent_at`` was rejected; returns whether nobody knew that every call is."""
        if self.reason is not None and sent_at < self._tripped_at:
            return False  # it was on its way already
        first = self.reason is None
        self._pause = _FIRST_EJECTION_SECONDS if first else min(2 * self._pause, _MAX_EJECTION_SECONDS)
        if first:
            self._tripped_at = now
        self.reason, self._probe_at, self._half_open = reason, now + self._pause, False
        return first

    def wait(self, now: float) -> float:
        """Seconds until a call may be sent; 0 for now, ``inf`` while one is trying."""
        if self.reason is None:
            return 0.0
        return math.inf if self._half_open else max(0.0, self._probe_at - now)

    def sent(self) -> None:
        """A call goes out."""
        self._half_open = self.reason is not None

    def returned(self, kind: str, sent_at: float, now: float) -> None:
        """A call that went out at ``sent_at`` has ended with a verdict of this kind; a rejection trips it besides."""
        if self.reason is None or sent_at < self._tripped_at:
            return
        if kind == "success":
            self.reset()
        else:
            self._half_open, self._probe_at = False, now + self._pause

    def reset(self) -> None:
        """Forget the rejection."""
        self.reason, self._half_open = None, False


class EndpointHealth:
    """What is known of one endpoint, whatever the model.

    Attributes:
        proven: whether any call to it has ever succeeded.
        worked_at: when a call succeeded last.
        breaker: keeps calls away from it.
    """

    __slots__ = ("breaker", "proven", "worked_at")

    def __init__(self) -> None:
        self.proven = False
        self.worked_at = -math.inf
        self.breaker = CredentialBreaker()


_MIN_CALLS = 10
_MAX_REJECTION_KINDS = 64  # of rejections that are remembered: servers may quote the request in theirs


class CommonRejections:
    """Counts the calls that were rejected in the same way.

    Not thread-safe: the caller holds the lock.

    Args:
        max_workers: as many calls as are in flight together may have been sent before the first was rejected.
    """

    def __init__(self, max_workers: int) -> None:
        self._calls_needed = max(_MIN_CALLS, max_workers)
        self._calls: OrderedDict[Hashable, Set[int]] = OrderedDict()

    def rejected(self, rejection: Hashable, call_id: int) -> bool:
        """Note that a call met ``rejection``; return True once enough calls have, and begin anew."""
        calls = self._calls.pop(rejection, None) or set()
        calls.add(call_id)
        if len(calls) >= self._calls_needed:
            return True
        self._calls[rejection] = calls
        if len(self._calls) > _MAX_REJECTION_KINDS:
            self._calls.popitem(last=False)
        return False
