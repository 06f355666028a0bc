"""Circuit breakers: they stop sending to a server that is down, or that rejects the credentials of every call."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Hashable, Optional, Set

from ..errors import ChatPoolError

__all__ = ["FAILURE_KINDS", "CircuitBreaker", "CommonRejections", "CredentialBreaker", "EndpointHealth"]


# Failures in a row that mean that the server is down: a constant, and more the more calls were in flight at once.
# Measured: it opened 0-2 times by mistake at 20-50 % random failures; lower thresholds did so hundreds of times.
_FAILURES_TO_OPEN = 10
_FAILURES_PER_CALL_IN_FLIGHT = 1.5

_FIRST_PROBE_SECONDS = 0.25  # after it opened; twice as long before each further probe ...
_MAX_PROBE_SECONDS = 1.0  # ... up to this

FAILURE_KINDS = frozenset({"timeout", "unavailable"})
"""The kinds of verdicts that are failures of the server."""


class CircuitBreaker:
    """Opens after many failures in a row, closes at the first success.

    CLOSED: all calls are sent.  OPEN: none is, until the next probe is due.  HALF_OPEN: one probe is in flight.

    A failure is a connection error, a timeout or a 5xx.  Only the success of an attempt that was sent after the
    first failure of the streak ends it: one sent earlier says nothing about the server now.

    Not thread-safe: the caller holds the lock.

    Attributes:
        is_open: True while only probes are sent (OPEN or HALF_OPEN).
        down_since: when the streak's first failure was sent, None without a streak.
        in_flight: attempts in flight.
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
        """Return the seconds until the next attempt may be sent; 0 for now, ``inf`` while a probe is in flight."""
        if not self.is_open:
            return 0.0
        return math.inf if self._half_open else max(0.0, self._probe_at - now)

    def retry_after(self, now: float) -> float:
        """Return the seconds after which a probe is to be expected, while it is open; more than 0."""
        wait = self.wait(now)
        return wait if 0 < wait < math.inf else _MAX_PROBE_SECONDS

    def total_open_seconds(self, now: float) -> float:
        """Return the seconds for which it has been open, all in all."""
        return self._open_seconds + (now - self._opened_at if self.is_open else 0.0)

    def sent(self) -> None:
        """Note that an attempt is sent."""
        self.in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self.in_flight)
        self._half_open = self.is_open

    def returned(self, kind: str, sent_at: float, now: float, down: Optional[bool] = None) -> None:
        """Note that an attempt sent at ``sent_at`` has ended.

        Args:
            kind: the kind of its verdict.
            sent_at: when it was sent.
            now: the time.
            down: True where the pacing knows that the server is down, False where it knows that it is not; None to
                decide by the number of failures.
        """
        self.in_flight -= 1
        if kind in FAILURE_KINDS:
            self._failed(sent_at, now, down)
        elif kind == "success":
            self._succeeded(sent_at, now)
        elif self.is_open and sent_at >= self._opened_at:
            # Rejected or cancelled: this tells nothing about the server, so the next probe may be sent at once.
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


# A person corrects a key or buys credit, which takes minutes, and a probe costs a call its time.
_FIRST_EJECTION_SECONDS = 60.0  # then twice as long each time ...
_MAX_EJECTION_SECONDS = 600.0


class CredentialBreaker:
    """Trips at a rejection that holds for every call (a wrong key, no credit), and lets one call at a time probe.

    Used only where calls can fail over to another endpoint.

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
        """Note that a call sent at ``sent_at`` was rejected; return True if this tripped the breaker."""
        if self.reason is not None and sent_at < self._tripped_at:
            return False  # it was in flight already
        first = self.reason is None
        self._pause = _FIRST_EJECTION_SECONDS if first else min(2 * self._pause, _MAX_EJECTION_SECONDS)
        if first:
            self._tripped_at = now
        self.reason, self._probe_at, self._half_open = reason, now + self._pause, False
        return first

    def wait(self, now: float) -> float:
        """Return the seconds until a call may be sent; 0 for now, ``inf`` while a probe is in flight."""
        if self.reason is None:
            return 0.0
        return math.inf if self._half_open else max(0.0, self._probe_at - now)

    def sent(self) -> None:
        """Note that a call is sent."""
        self._half_open = self.reason is not None

    def returned(self, kind: str, sent_at: float, now: float) -> None:
        """Note that a call sent at ``sent_at`` has ended; after a rejection, :meth:`trip` is called as well."""
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
    """State of one endpoint that holds for all its models.

    Attributes:
        proven: True once any call to it has succeeded.
        worked_at: when a call succeeded last.
        breaker: trips at a rejection of its credentials.
    """

    __slots__ = ("breaker", "proven", "worked_at")

    def __init__(self) -> None:
        self.proven = False
        self.worked_at = -math.inf
        self.breaker = CredentialBreaker()


_MIN_CALLS = 10
_MAX_REJECTION_KINDS = 64  # remembered at most: servers may quote the request in their messages


class CommonRejections:
    """Recognises a rejection that every call would get: many calls got the same one, and none has ever succeeded.

    Not thread-safe: the caller holds the lock.

    Args:
        max_workers: as many calls may have been in flight before the first was rejected.
    """

    def __init__(self, max_workers: int) -> None:
        self._calls_needed = max(_MIN_CALLS, max_workers)
        self._calls: OrderedDict[Hashable, Set[int]] = OrderedDict()

    def rejected(self, rejection: Hashable, call_id: int) -> bool:
        """Note that a call got ``rejection``; return True once enough calls have, and start counting anew."""
        calls = self._calls.pop(rejection, None) or set()
        calls.add(call_id)
        if len(calls) >= self._calls_needed:
            return True
        self._calls[rejection] = calls
        if len(self._calls) > _MAX_REJECTION_KINDS:
            self._calls.popitem(last=False)
        return False
