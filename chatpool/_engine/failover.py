"""Failover: the consequences of a failure in a pool with several endpoints."""

from __future__ import annotations

import logging
from typing import Dict

from .._policy.retry import RetryDecision
from .._values import Verdict
from ..errors import ChatPoolError
from .call import Call, FailoverState, UpstreamKey
from .endpoints import Endpoints
from .scheduler import Scheduler

__all__ = ["Failover"]

logger = logging.getLogger("chatpool")

_PIN_SECONDS = 1.0  # in which a call waits for the endpoint whose key was fetched again for it


class Failover:
    """Notes the endpoints a call has failed on, and ejects endpoints that refuse every call.

    Args:
        endpoints: the endpoints.
        scheduler: knows their health.
    """

    def __init__(self, endpoints: Endpoints, scheduler: Scheduler) -> None:
        self._endpoints = endpoints
        self._scheduler = scheduler

    def prepare(self, call: Call) -> FailoverState:
        """Return the failover state of a call; set in its retry state whether this endpoint's key is a new one."""
        if call.failover_state is None:
            call.failover_state = FailoverState()
        if call.retry is not None:
            call.retry.key_refreshed = call.upstream_key in call.failover_state.refreshed
        return call.failover_state

    def follow(
        self, call: Call, verdict: Verdict, decision: RetryDecision, now: float, elapsed: float
    ) -> RetryDecision:
        """Adapt ``decision``, made for one endpoint after a failure there, to the state of the others."""
        state = self.prepare(call)
        if decision.refresh_key:
            state.refreshed.add(call.upstream_key)
            state.pin(call.upstream_key, self._endpoints.others(call.upstream_key), now + _PIN_SECONDS)
            return decision
        if verdict.kind == "fatal":
            return self._eject(call, state, verdict, decision, now - elapsed, now)
        if decision.wait is None:
            return decision
        if decision.reject_for is not None and verdict.error is not None:
            self._scheduler.refuse(call.upstream_key, now + decision.reject_for, verdict.error)
        state.avoid(call.upstream_key, now + (decision.wait if decision.avoid_for is None else decision.avoid_for))
        return decision._replace(wait=max(0.0, state.next_usable(now + decision.wait) - now))

    def _eject(
        self, call: Call, state: FailoverState, verdict: Verdict, decision: RetryDecision, sent_at: float, now: float
    ) -> RetryDecision:
        """Eject an endpoint that would refuse every call: the others get the calls, as long as there are any."""
        error = verdict.error or ChatPoolError("refused")
        state.exclude(call.upstream_key, error)
        ejection = self._scheduler.eject(call, verdict.scope, error, sent_at, now)
        if ejection.is_new and not ejection.reasons:
            logger.warning("endpoint %s is left alone, the others take its calls: %s", call.upstream_key[0], error)
        if ejection.reasons:
            error = _no_endpoint_left(call.upstream_key, error, ejection.reasons)
            return RetryDecision(error=error, scope=ejection.scope)
        return decision if decision.wait is not None else decision._replace(scope="call")


def _no_endpoint_left(key: UpstreamKey, error: ChatPoolError, reasons: Dict[str, ChatPoolError]) -> ChatPoolError:
    """Return the error of a call that every endpoint refuses: the last one's, with all reasons in its message."""
    others = "".join(f"{name}: {reason}; " for name, reason in reasons.items() if name != key[0])
    return error.copied(f"no endpoint is left: {others}{key[0]}: ")
