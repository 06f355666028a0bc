"""What follows a failure where the pool has other endpoints."""

from __future__ import annotations

import logging
from typing import Dict

from .._policy.retry import RetryDecision
from ..errors import ChatPoolError
from ..types import Verdict
from .call import Call, FailoverState, UpstreamKey
from .endpoints import Endpoints
from .scheduler import Scheduler

__all__ = ["Failover"]

logger = logging.getLogger("chatpool")

_STAY = 1.0  # seconds in which a call waits for the endpoint whose key was fetched again for it


class Failover:
    """Notes where a call has failed, and keeps all calls away from endpoints that refuse every one.

    Args:
        routes: the endpoints.
        scheduler: knows how they are.
    """

    def __init__(self, routes: Endpoints, scheduler: Scheduler) -> None:
        self._routes = routes
        self._scheduler = scheduler

    def before(self, call: Call) -> FailoverState:
        """Where the call has been; its retries are told whether the key of this endpoint is a new one."""
        if call.visits is None:
            call.visits = FailoverState()
        if call.retry is not None:
            call.retry.key_refreshed = call.line in call.visits.refreshed
        return call.visits

    def follow(
        self, call: Call, verdict: Verdict, decision: RetryDecision, now: float, elapsed: float
    ) -> RetryDecision:
        """``decision``, made for one endpoint after a failure there, with regard to the others."""
        visits = self.before(call)
        if decision.refresh_key:
            visits.refreshed.add(call.line)
            visits.stay(call.line, self._routes.others(call.line), now + _STAY)
            return decision
        if verdict.kind == "fatal":
            return self._refused(call, visits, verdict, decision, now - elapsed, now)
        if decision.wait is None:
            return decision
        if decision.reject_for is not None and verdict.error is not None:
            self._scheduler.refuse(call.line, now + decision.reject_for, verdict.error)
        visits.leave(call.line, now + (decision.wait if decision.avoid_for is None else decision.avoid_for))
        return decision._replace(wait=max(0.0, visits.soonest(now + decision.wait) - now))

    def _refused(
        self, call: Call, visits: FailoverState, verdict: Verdict, decision: RetryDecision, sent_at: float, now: float
    ) -> RetryDecision:
        """The endpoint would refuse every call: the others get them, as long as there are any."""
        error = verdict.error or ChatPoolError("refused")
        visits.refused(call.line, error)
        found = self._scheduler.leave_alone(call, verdict.scope, error, sent_at, now)
        if found.is_new and not found.reasons:
            logger.warning("endpoint %s is left alone, the others take its calls: %s", call.line[0], error)
        if found.reasons:
            return RetryDecision(error=_none_left(call.line, error, found.reasons), scope=found.scope)
        return decision if decision.wait is not None else decision._replace(scope="call")


def _none_left(key: UpstreamKey, error: ChatPoolError, reasons: Dict[str, ChatPoolError]) -> ChatPoolError:
    """The error of a call that every endpoint refuses: the last one's, with the reasons of all in its message."""
    others = "".join(f"{name}: {reason}; " for name, reason in reasons.items() if name != key[0])
    return error.copied(f"no endpoint is left: {others}{key[0]}: ")
