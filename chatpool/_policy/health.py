"""Health of one (endpoint, model): its failures, and how many in a row are to be expected by chance."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

from .._values import Verdict
from ..errors import ChatPoolError
from ..types import LineStats
from .circuit_breaker import CircuitBreaker

__all__ = ["FailureRate", "HealthSnapshot", "UpstreamHealth", "expected_failure_run"]


_MEMORY_ATTEMPTS = 1000.0  # earlier ones count less and less
_MAX_EXPECTED_RUN = (
    4  # half of the retries that a call has by default: the others are for trouble, however much fails by chance
)


class FailureRate:
    """Share of attempts that fail among those that succeed, and the longest run of failures that it explains.

    Of N attempts, each of which fails with probability p, the longest series of failures has about log(N) / log(1/p)
    of them (Erdos and Renyi, "On a new law of large numbers", 1970).  One more is granted, for that is a mean.
    Failures beyond that are an outage and do not count for the share.
    """

    __slots__ = ("_attempts", "_failures")

    def __init__(self) -> None:
        self._attempts = 0.0
        self._failures = 0.0

    def succeeded(self, failures: int) -> None:
        """Note an attempt that succeeded after ``failures`` failures in a row."""
        by_chance = min(failures, self.expected_run() + 1) if failures and self._attempts else 0
        self._failures += by_chance
        self._attempts += by_chance + 1
        if self._attempts > _MEMORY_ATTEMPTS:
            self._failures /= 2
            self._attempts /= 2

    def expected_run(self) -> int:
        """Return how many failures in a row chance explains; 0 before the first success."""
        if not self._attempts:
            return 0
        return min(
            _MAX_EXPECTED_RUN, expected_failure_run(self._attempts, max(self._failures, 0.5) / (self._attempts + 1))
        )


def expected_failure_run(attempts: float, share: float) -> int:
    """Return the longest run of failures to expect among ``attempts`` attempts of which ``share`` fail."""
    return 1 + math.ceil(math.log(attempts) / -math.log(share))


class HealthSnapshot(NamedTuple):
    """State of one (endpoint, model) at a failure, as the retry decision needs it.

    Attributes:
        streak: failures of the server since its last success.
        excess_streak: the part of the streak that chance does not explain, as a multiple of the calls in flight or
            parked.
        chance_failures: failures in a row that chance explains.
        is_open: True while the circuit breaker holds calls back because the server is down.
        down_for: seconds for which the server has been down, None while the circuit is closed.
        rejected_for: seconds of rejections for rate without a success; None without any.
        proven: True once any call has succeeded.
        failing_for: seconds of failures of the server without a success; None without any.
        recheck: seconds after which a call whose key or model was rejected may be tried again; None where the
            rejection stands.
        good_sent_at: the latest send of a call that succeeded.
        unanimous: True if many calls got this very rejection and none has succeeded, so that no call will.
        has_healthy_peer: True if another endpoint would take the call at once.
        has_peer: True if another endpoint may take the call, now or later.
        chance_rejections: rejections of one call in a row that chance explains, where they do not depend on the load.
        overloaded: True if its failures are rejections of a server with too much to do.
        since_success: seconds since the latest success, ``inf`` before the first.
    """

    streak: int = 0
    excess_streak: int = 0
    chance_failures: int = 0
    is_open: bool = False
    down_for: Optional[float] = None
    rejected_for: Optional[float] = None
    proven: bool = False
    failing_for: Optional[float] = None
    recheck: Optional[float] = None
    good_sent_at: float = -math.inf
    unanimous: bool = False
    has_healthy_peer: bool = False
    has_peer: bool = False
    chance_rejections: int = 0
    overloaded: bool = False
    since_success: float = math.inf


class UpstreamHealth:
    """Failures of one (endpoint, model), and the time until which the server has said that it will reject calls.

    Not thread-safe: the caller holds the lock.

    Attributes:
        circuit: its circuit breaker.
        proven: True once any call has succeeded.
        streak: failures of the server since its last success.
    """

    __slots__ = (
        "_failure_rate",
        "_reject_until",
        "_rejected_since",
        "_rejection",
        "_succeeded_at",
        "circuit",
        "proven",
        "streak",
    )

    def __init__(self) -> None:
        self.circuit = CircuitBreaker()
        self.streak = 0
        self._failure_rate = FailureRate()
        self.proven = False
        self._succeeded_at = -math.inf
        self._rejected_since: Optional[float] = None
        self._reject_until = -math.inf
        self._rejection: Optional[ChatPoolError] = None

    def returned(self, verdict: Verdict, sent_at: float, now: float, down: Optional[bool] = None) -> None:
        """Note that an attempt sent at ``sent_at`` has ended with ``verdict``; ``down`` as for the circuit breaker."""
        kind = verdict.kind
        self.circuit.returned(kind, sent_at, now, down)
        if kind == "success":
            self._failure_rate.succeeded(self.streak)
            self.streak = 0
            self.proven = True
            self._succeeded_at = now
            self._rejected_since = None
        elif kind == "throttled":
            if self._rejected_since is None:
                self._rejected_since = sent_at
        elif kind in ("timeout", "unavailable", "retry"):
            self.streak += 1

    def snapshot(self, now: float, on_their_way: int) -> HealthSnapshot:
        """Return the state for a retry decision; ``on_their_way`` calls are in flight or parked."""
        chance_failures = self._failure_rate.expected_run()
        down_since, rejected_since = self.circuit.down_since if self.circuit.is_open else None, self._rejected_since
        return HealthSnapshot(
            self.streak,
            max(0, self.streak - chance_failures) // max(1, on_their_way),
            chance_failures,
            self.circuit.is_open,
            None if down_since is None else now - down_since,
            None if rejected_since is None else now - rejected_since,
            self.proven,
            since_success=now - self._succeeded_at,
        )

    def reject(self, until: float, error: ChatPoolError) -> None:
        """Send nothing before ``until``: the server has said that it will reject calls, with ``error``."""
        if until > self._reject_until:
            self._reject_until, self._rejection = until, error

    def rejection_at(self, now: float) -> Optional[ChatPoolError]:
        """Return the error that a call sent now would get, None if it may be sent."""
        return self._rejection if now < self._reject_until else None

    def rejected_for(self, now: float) -> float:
        """Return the seconds for which the server has said that it will reject calls, 0.0 without any."""
        return max(0.0, self._reject_until - now)

    def stats(self, now: float) -> LineStats:
        """Return the state for statistics."""
        paused = self._reject_until - now
        if paused > 0:
            return LineStats(self.streak, paused_until=paused, why=f"the server asked for it: {self._rejection}")
        if self.circuit.is_open:
            wait = self.circuit.wait(now)
            why = "the server is down; single probes are sent"
            return LineStats(self.streak, paused_until=None if math.isinf(wait) else wait, why=why)
        return LineStats(failure_streak=self.streak)
