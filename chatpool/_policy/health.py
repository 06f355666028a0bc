"""What the latest answers say about one (endpoint, model).

How many failures in a row are no more than bad luck.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

from ..errors import ChatPoolError
from ..types import LineStats, Verdict
from .circuit_breaker import CircuitBreaker

__all__ = ["FailureRate", "HealthSnapshot", "UpstreamHealth", "expected_failure_run"]


_MEMORY_ATTEMPTS = 1000.0  # attempts; what was before them counts less and less
_MAX_EXPECTED_RUN = (
    4  # half of the retries that a call has by default: the others are for trouble, however much fails by chance
)


class FailureRate:
    """Knows how often attempts fail beside those that succeed, and so how many may fail in a row by chance.

    Of N attempts, each of which fails with probability p, the longest series of failures has about log(N) / log(1/p)
    of them (Erdos and Renyi, "On a new law of large numbers", 1970).  One more is granted, for that is a mean; and
    what goes beyond it was trouble, and does not count as chance the next time.
    """

    __slots__ = ("_attempts", "_failures")

    def __init__(self) -> None:
        self._attempts = 0.0
        self._failures = 0.0

    def succeeded(self, failures: int) -> None:
        """An attempt has succeeded after so many failures in a row."""
        by_chance = min(failures, self.expected_run() + 1) if failures and self._attempts else 0
        self._failures += by_chance
        self._attempts += by_chance + 1
        if self._attempts > _MEMORY_ATTEMPTS:
            self._failures /= 2
            self._attempts /= 2

    def expected_run(self) -> int:
        """Failures that need no other explanation; none where nothing has ever succeeded."""
        if not self._attempts:
            return 0
        return min(
            _MAX_EXPECTED_RUN, expected_failure_run(self._attempts, max(self._failures, 0.5) / (self._attempts + 1))
        )


def expected_failure_run(attempts: float, share: float) -> int:
    """Failures in a row that chance explains among so many attempts, of which this share fails."""
    return 1 + math.ceil(math.log(attempts) / -math.log(share))


class HealthSnapshot(NamedTuple):
    """What a retry decision has to know of the line at the moment of a failure.

    Attributes:
        streak: failures of the server since its last success.
        level: the part of the streak that bad luck does not explain, in multiples of the calls on their way.
        luck: how many failures in a row it does explain.
        closed: whether the line is held because the server is down.
        down_for: seconds for which it has been down, None while it is not held.
        rejected_for: seconds for which there were rejections for rate and no success; None without any.
        proven: whether any call has ever succeeded.
        failing_for: seconds for which there were failures of the server and no success; None without any.
        recheck: seconds after which a call whose key or model was rejected may be tried again; None where the
            rejection stands.
        good_sent_at: the latest send of a call that succeeded.
        unanimous: whether so many calls have met this very rejection, and none has succeeded, that no call will.
        elsewhere: whether another endpoint would take the call at once.
        left: whether another endpoint may take it sooner or later.
        chance: how many rejections of one call in a row are due to chance, where rejections do not depend on the pace.
        overloaded: whether its failures are rejections, because it has too much to do.
        succeeded_before: seconds since the latest success, ``inf`` before the first.
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
    """The failures of one (endpoint, model), and the time until which the server wants to be left alone.

    Not thread-safe: the caller holds the lock.
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
        """An attempt that went out at ``sent_at`` has ended with ``verdict``."""
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
        """The line as a retry decision sees it, with so many calls in flight or parked."""
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
        """Send nothing before ``until``: the server has said that it will reject."""
        if until > self._reject_until:
            self._reject_until, self._rejection = until, error

    def rejection_at(self, now: float) -> Optional[ChatPoolError]:
        """The error that a call sent now would draw, None if it may be sent."""
        return self._rejection if now < self._reject_until else None

    def rejected_for(self, now: float) -> float:
        """Seconds for which the server has said that it will reject, 0.0 if it has not."""
        return max(0.0, self._reject_until - now)

    def stats(self, now: float) -> LineStats:
        """This state for a person."""
        paused = self._reject_until - now
        if paused > 0:
            return LineStats(self.streak, paused_until=paused, why=f"the server asked for it: {self._rejection}")
        if self.circuit.is_open:
            wait = self.circuit.wait(now)
            why = "the server is down; single probes are sent"
            return LineStats(self.streak, paused_until=None if math.isinf(wait) else wait, why=why)
        return LineStats(failure_streak=self.streak)
