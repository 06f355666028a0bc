"""Load balancing: the expected latency of an endpoint, by which one of several is chosen for a call."""

from __future__ import annotations

import math
from typing import Optional, Tuple

from ..errors import ChatPoolError
from .circuit_breaker import CredentialBreaker, EndpointHealth
from .health import UpstreamHealth

__all__ = ["PeakLatencyScore"]

_ANSWERS_IN_MEAN = 10  # of the latency
_TRY_EVERY_SECONDS = 1.0  # an endpoint that fails gets at least one call in this time, although others do better


class PeakLatencyScore:
    """Expected latency of calls to one model at one endpoint.

    Not thread-safe: the caller holds the lock.

    Args:
        endpoint: the state of the endpoint that holds for all models.
        health: the health of this model there.
        weight: how much the endpoint is preferred, as a factor.
        several: True if the pool has other endpoints; without them nothing is recorded.

    Attributes:
        latency: mean seconds to an answer, 0.0 before the first.
    """

    __slots__ = (
        "_breaker",
        "_breakers",
        "_health",
        "_last_sent",
        "_silent_since",
        "_weight",
        "endpoint",
        "latency",
        "several",
    )

    def __init__(self, endpoint: EndpointHealth, health: UpstreamHealth, weight: float = 1.0, *, several: bool) -> None:
        self.endpoint = endpoint
        self.several = several
        self.latency = 0.0
        self._health = health
        self._weight = weight
        self._breaker = CredentialBreaker()
        self._breakers: Tuple[CredentialBreaker, CredentialBreaker] = (endpoint.breaker, self._breaker)
        self._last_sent = -math.inf
        self._silent_since = 0.0

    # -- may calls be sent? -------------------------------------------------------------------------------

    @property
    def tripped(self) -> Optional[ChatPoolError]:
        """Rejection for which the endpoint is ejected until a probe succeeds, None if it is not ejected."""
        return self.endpoint.breaker.reason or self._breaker.reason

    @property
    def probes_only(self) -> bool:
        """True while it gets single calls only, which probe whether it is back."""
        return self._health.circuit.is_open or self.tripped is not None

    def reason_against(self, now: float) -> Optional[ChatPoolError]:
        """Return why it would reject every call, None if that is not known."""
        return self.tripped or self._health.rejection_at(now)

    def ejected_for(self, now: float) -> float:
        """Return the seconds for which calls go to other endpoints, whatever the pacing allows."""
        return max(self._health.rejected_for(now), *(breaker.wait(now) for breaker in self._breakers))

    def expected(self, usual_latency: float, now: float) -> float:
        """Return about how long an answer takes if a call is sent now.

        Silence makes it longer: otherwise a server that hangs would collect calls until the first of them times out.
        So do failures, but a failing endpoint is tried now and then: it could not show otherwise that it is better.

        Args:
            usual_latency: seconds for an endpoint that has not answered yet.
            now: the time.
        """
        failures, in_flight = self._health.streak, self._health.circuit.in_flight
        if self.probes_only or (failures and now - self._last_sent >= _TRY_EVERY_SECONDS):
            return 0.0
        silent = now - self._silent_since if in_flight else 0.0
        return max(self.latency or usual_latency, silent) * (in_flight + 1) * (failures + 1) / self._weight

    # -- what happens --------------------------------------------------------------------------------------

    def sent(self, now: float) -> None:
        """Note that a call is sent."""
        self._last_sent = now
        if self._health.circuit.in_flight == 1:  # this one
            self._silent_since = now
        for breaker in self._breakers:
            breaker.sent()

    def returned(self, kind: str, sent_at: float, now: float) -> None:
        """Note that a call sent at ``sent_at`` has ended with a verdict of this kind."""
        self._silent_since = now
        for breaker in self._breakers:
            breaker.returned(kind, sent_at, now)
        if kind == "success":
            seconds = now - sent_at
            self.latency += (seconds - self.latency) / _ANSWERS_IN_MEAN if self.latency else seconds

    def trip(self, scope: str, reason: ChatPoolError, sent_at: float, now: float) -> bool:
        """Note a rejection of every call of ``scope``; return True if it was not known before."""
        return self._breakers[scope == "model"].trip(reason, sent_at, now)

    def reset(self) -> None:
        """Allow calls again, except before the time until which the server has said that it rejects them."""
        for breaker in self._breakers:
            breaker.reset()
