"""Fallbacks: what is sent in the place of a request that has failed, or whose answer is not accepted."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

from .._policy.retry import RetryDecision
from .._values import Verdict
from ..clock import Clock
from ..errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AuthenticationError,
    ChatPoolError,
    DayLimitError,
    DeadlineExceededError,
    InsufficientQuotaError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
)
from .attempt import Attempter, change_last_attempt, encode_changed
from .call import DONE, Call, FailoverState, Review, UpstreamKey, report_fallback
from .endpoints import Endpoints
from .fallback_list import Alternative
from .scheduler import Scheduler

__all__ = ["FallbackSwitch"]

# What another request has to differ in to be worth sending.
_ANYTHING, _UPSTREAM, _ENDPOINT = "anything", "upstream", "endpoint"
_OF_THE_SERVER = (NotFoundError, PermissionDeniedError, InternalServerError)


class FallbackSwitch:
    """Has calls go on with their next fallback.

    Args:
        endpoints: the endpoints.
        clock: the pool's clock.
        scheduler: is told where the call goes.
        attempter: knows the end of its time.
    """

    def __init__(self, endpoints: Endpoints, clock: Clock, scheduler: Scheduler, attempter: Attempter) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._scheduler = scheduler
        self._attempter = attempter

    def follow(self, call: Call, decision: RetryDecision) -> RetryDecision:
        """Return ``decision``, which ends a call; another one where the call goes on with a fallback.

        Raises:
            TypeError, ConfigurationError: the fallback's body cannot be sent.
        """
        error: Any = decision.error
        if isinstance(error, DeadlineExceededError) and error.__cause__ is not None:
            error = error.__cause__  # the server asks to wait for longer than the call has, and another may not
        if not self._may_follow(call, error) or (call.suspects > 1 and decision.scope == "call"):
            return decision  # of many texts in one request, it is made again in parts first
        if decision.reject_for is not None:
            self._scheduler.refuse(call.upstream_key, self._clock.now() + decision.reject_for, error)
        fallbacks = call.options.fallbacks
        assert fallbacks is not None
        fallbacks.remember(call.first_request, call.fallback, error, for_all=decision.scope != "call")
        if self._switch(call, error, decision.scope):
            call.unreported_usage = None
            return RetryDecision(wait=0.0)
        if decision.skipped and fallbacks.reason_to_skip(call.first_request, call.fallback) is None:
            return RetryDecision(wait=0.0)  # meanwhile another call has found that no fallback is better: it is sent
        return decision._replace(error=_with_earlier(call, decision.error), scope=self._scope_of(call, decision))

    def _scope_of(self, call: Call, decision: RetryDecision) -> str:
        """Return what ends with a call whose last fallback has failed: others may do without that fallback."""
        fallbacks = call.options.fallbacks
        assert fallbacks is not None
        if not call.fallback or decision.scope == "call":
            return decision.scope
        is_refused = fallbacks.refuses_all(call.first_request, 0)
        if fallbacks.entries[call.fallback - 1].endpoint is not None or decision.scope == "model":
            return "model" if is_refused else "call"
        return decision.scope

    def follow_review(self, call: Call, verdict: Verdict, review: Review) -> Review:
        """Return ``review``, which rejects an answer; one with the next request where a fallback follows."""
        if not (review.is_of_answer and self._may_follow(call, review.error)):
            return review
        if self._switch(call, review.error, "call", verdict):
            return Review(request=call.request)
        return review._replace(error=_with_earlier(call, review.error))

    def skip_refused(self, call: Call) -> bool:
        """Have a fresh call begin with a fallback if its request is known to be refused, or not to be waited for.

        Returns:
            Whether it does.
        """
        began_at = call.fallback
        error = None if call.background is not None else self._reason_to_skip(call)
        while error is not None:
            alternative = self._next(call, error, "model")
            if alternative is None:
                break
            self._make_current(call, alternative)
            call.move_to(self._key_of(call, alternative))
            self._pin(call, alternative, error)
            error = self._reason_to_skip(call)
        return call.fallback != began_at

    def _reason_to_skip(self, call: Call) -> Optional[ChatPoolError]:
        """Return why the request that a fresh call is to begin with had better not be sent, None where it is."""
        fallbacks = call.options.fallbacks
        assert fallbacks is not None
        error = fallbacks.reason_to_skip(call.first_request, call.fallback)
        if error is not None or not call.options.fails_when_down:
            return error
        outage = self._scheduler.outage(call, self._clock.now())
        return None if outage is None or outage.probe_is_due else outage.error()

    def begin_at(self, call: Call, number: Any) -> None:
        """Make a fallback that an earlier process has sent the request of a fresh call, by its number as a text."""
        fallbacks = call.options.fallbacks
        assert fallbacks is not None
        for alternative in fallbacks.alternatives(call.first_request):
            if alternative.number and str(alternative.number) == number:
                self._make_current(call, alternative)

    def _may_follow(self, call: Call, error: Any) -> bool:
        """Return whether the server's failure may lead to a fallback: the call may still be sent, and in time."""
        if not isinstance(error, APIError) or call.partly_delivered or call.polls or call.state == DONE:
            return False
        now = self._clock.now()
        return call.sink.refusal(call) is None and now < self._attempter.deadline(call, now).at

    def _switch(self, call: Call, error: Any, scope: str, verdict: Optional[Verdict] = None) -> bool:
        """Make the next fallback the request of a call; return False if there is none that helps."""
        alternative = self._next(call, error, scope)
        if alternative is None:
            return False
        now, was_sent = self._clock.now(), call.attempts > call.attempts_before
        if was_sent:
            change_last_attempt(call, wait=0.0)
            report_fallback(call, now, error, verdict)
        key = self._key_of(call, alternative)
        self._make_current(call, alternative, answer=None if verdict is None else verdict.value)
        self._scheduler.reroute(call, key, now)
        self._pin(call, alternative, error)
        return True

    def _make_current(self, call: Call, alternative: Alternative, answer: Any = None) -> None:
        payload = encode_changed(call, alternative.request)
        call.begin_fallback(alternative.number, alternative.request, answer)
        call.payload = payload

    def _pin(self, call: Call, alternative: Alternative, error: ChatPoolError) -> None:
        """Keep a call from the other endpoints of its model if its request is for one only."""
        if alternative.endpoint is None:
            return
        call.failover_state = FailoverState()
        for key in self._endpoints.others(call.upstream_key):
            call.failover_state.exclude(key, error)

    def _key_of(self, call: Call, alternative: Alternative) -> UpstreamKey:
        return (alternative.endpoint or self._endpoints.first.spec.name, alternative.request.model)

    # -- which one follows ----------------------------------------------------------------------------------

    def _next(self, call: Call, error: Any, scope: str) -> Optional[Alternative]:
        """Return the next alternative that may help, None without one."""
        fallbacks, needed = call.options.fallbacks, _needed(error, scope)
        assert fallbacks is not None
        known = list(fallbacks.alternatives(call.first_request))
        for alternative in known[call.fallback + 1 :]:
            is_refused = fallbacks.refusal(call.first_request, alternative.number) is not None
            if not is_refused and self._differs(call, known, alternative, needed):
                return alternative
        return None

    def _differs(self, call: Call, known: Sequence[Alternative], new: Alternative, needed: str) -> bool:
        """Return whether an alternative differs from all that were sent, and from the last one in what is needed."""
        if new.endpoint is not None and not self._may_be_used(new.endpoint, new.request.model):
            return False
        last, tried = known[call.fallback], known[: new.number]
        elsewhere = self._goes_elsewhere(call, last, new)
        if any(new.request == one.request and (new.endpoint == one.endpoint or not elsewhere) for one in tried):
            return False
        if needed == _ENDPOINT:
            return elsewhere
        return needed == _ANYTHING or elsewhere or new.request.model != last.request.model

    def _may_be_used(self, endpoint: str, model: Optional[str]) -> bool:
        """Return whether the pool has an endpoint, which does not refuse every call for now.

        Results of one pool may be sent again by another one, with the fallbacks of the first.
        """
        return self._endpoints.has(endpoint) and not self._scheduler.refuses((endpoint, model), self._clock.now())

    def _goes_elsewhere(self, call: Call, last: Alternative, new: Alternative) -> bool:
        """Return whether it goes to an endpoint that has not just failed."""
        if new.endpoint is None:
            return last.endpoint is not None and (
                self._endpoints.fails_over or self._endpoints.is_standby(last.endpoint)
            )
        refused = () if call.failover_state is None else [key[0] for key in call.failover_state.refusals]
        return new.endpoint not in (last.endpoint, call.upstream_key[0], *refused)


def _needed(error: Any, scope: str) -> str:
    """Return what a request has to differ in from one that has failed with ``error``, so as not to fail with it too."""
    if isinstance(error, InsufficientQuotaError) and scope == "model":
        return _UPSTREAM
    of_the_endpoint = isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError)
    if of_the_endpoint or isinstance(error, (AuthenticationError, InsufficientQuotaError)):
        return _ENDPOINT
    return _UPSTREAM if isinstance(error, (DayLimitError, *_OF_THE_SERVER)) else _ANYTHING


def _with_earlier(call: Call, error: Any) -> Any:
    """Return the error of a call whose last fallback has failed, with the reasons of those before it."""
    last: Dict[int, str] = {attempt.fallback: attempt.reason for attempt in call.history}
    last.pop(call.fallback, None)
    if not last:
        return error
    reasons = "; ".join(
        "the request: " + text if not number else f"fallback {number}: {text}" for number, text in last.items()
    )
    return error.copied(f"no fallback is left ({reasons}); the last one: ")
