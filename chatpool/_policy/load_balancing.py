"""How one endpoint compares with the others of its pool, for the calls to one model."""

from __future__ import annotations

import math
from typing import Optional, Tuple

from ..errors import ChatPoolError
from .circuit_breaker import CredentialBreaker, EndpointHealth
from .health import UpstreamHealth

__all__ = ["PeakLatencyScore"]

_ANSWERS_IN_MEAN = 10  # of the latency
_TRY_EVERY_SECONDS = 1.0  # seconds: an endpoint that fails gets a call at least so often, although others do better


class PeakLatencyScore:
    """Whether calls go to an endpoint rather than to another.

    Not thread-safe: the caller holds the lock.

    Args:
        endpoint: what is known of the endpoint, whatever the model.
        health: what the latest answers to calls of this model say.
        weight: how much it is preferred, as a factor.
        several: whether there are others; without them nothing is noted.

    Attributes:
        latency: seconds that an answer usually takes, 0.0 before the first.
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
        """Why it is left alone until a trial has shown that it takes calls again, None if it is not."""
        return self.endpoint.breaker.reason or self._breaker.reason

    @property
    def probes_only(self) -> bool:
        """Whether it gets single calls only, which look whether it is back."""
        return self._health.circuit.is_open or self.tripped is not None

    def reason_against(self, now: float) -> Optional[ChatPoolError]:
        """Why it would reject every call, None if it is not known to."""
        return self.tripped or self._health.rejection_at(now)

    def ejected_for(self, now: float) -> float:
        """Seconds for which calls go elsewhere, whatever may be sent."""
        return max(self._health.rejected_for(now), *(breaker.wait(now) for breaker in self._breakers))

    def expected(self, usual_latency: float, now: float) -> float:
        """About how long an answer takes if a call is sent now; ``usual`` for an endpoint that has not answered yet.

        Silence makes it longer: a server that hangs would gather calls otherwise until the first of them times out.
        So do failures, but it is tried now and then: it could not show otherwise that it is better.
        """
        failures, in_flight = self._health.streak, self._health.circuit.in_flight
        if self.probes_only or (failures and now - self._last_sent >= _TRY_EVERY_SECONDS):
            return 0.0
        silent = now - self._silent_since if in_flight else 0.0
        return max(self.latency or usual_latency, silent) * (in_flight + 1) * (failures + 1) / self._weight

    # -- what happens --------------------------------------------------------------------------------------

    def sent(self, now: float) -> None:
        """A call goes out."""
        self._last_sent = now
        if self._health.circuit.in_flight == 1:  # this one
            self._silent_since = now
        for breaker in self._breakers:
            breaker.sent()

    def returned(self, kind: str, sent_at: float, now: float) -> None:
        """A call that went out at ``sent_at`` has ended with a verdict of this kind."""
        self._silent_since = now
        for breaker in self._breakers:
            breaker.returned(kind, sent_at, now)
        if kind == "success":
            seconds = now - sent_at
            self.latency += (seconds - self.latency) / _ANSWERS_IN_MEAN if self.latency else seconds

    def trip(self, scope: str, reason: ChatPoolError, sent_at: float, now: float) -> bool:
        """It rejected a call as it would every one of ``scope``; returns whether nobody knew."""
        return self._breakers[scope == "model"].trip(reason, sent_at, now)

    def reset(self) -> None:
        """Calls may be sent again, unless the server has said until when it rejects them."""
        for breaker in self._breakers:
            breaker.reset()
