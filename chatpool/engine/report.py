"""What happened to a call: its history, and the events that listeners hear."""

from __future__ import annotations

from typing import Optional

from ..errors import ChatPoolError
from ..events import Event
from ..types import Attempt, Usage, Verdict
from .call import Call

__all__ = ["attempt_of", "report_end", "report_retry", "report_send"]


def attempt_of(verdict: Verdict, wait: Optional[float], elapsed: float) -> Attempt:
    """An attempt for the history of its call."""
    return Attempt(_reason(verdict), verdict.status, wait, elapsed, verdict.request_id)


def report_send(call: Call, now: float) -> None:
    """An attempt starts."""
    dispatcher = call.options.dispatcher
    if dispatcher.wants("sent"):
        dispatcher.emit(_event("sent", call, now))


def report_retry(call: Call, attempt: Attempt, now: float) -> None:
    """``attempt`` has failed and another follows."""
    dispatcher = call.options.dispatcher
    if dispatcher.wants("retrying"):
        dispatcher.emit(_event("retrying", call, now, attempt)._replace(reason=attempt.reason, wait=attempt.wait))


def report_end(call: Call, now: float, *, error: Optional[ChatPoolError], usage: Optional[Usage]) -> None:
    """The call has its outcome."""
    dispatcher = call.options.dispatcher
    kind = "succeeded" if error is None else "failed"
    if dispatcher.wants(kind):
        last = call.history[-1] if call.history else None
        reason = None if error is None else type(error).__name__
        dispatcher.emit(_event(kind, call, now, last)._replace(reason=reason, usage=usage))


def _event(kind: str, call: Call, now: float, attempt: Optional[Attempt] = None) -> Event:
    event = Event(kind, call.id, call.attempts, now, run_id=call.sink.run_id, model=call.request.model)
    if attempt is None:
        return event
    return event._replace(status=attempt.status, elapsed=attempt.elapsed, request_id=attempt.request_id)


def _reason(verdict: Verdict) -> str:
    """Why an attempt failed, in a few words, without anything the caller wrote."""
    if verdict.kind == "success":
        return "ok"
    if verdict.kind == "timeout":
        return "timed out"
    if verdict.status is None:
        return "connection failed"
    code = getattr(verdict.error, "code", None) or getattr(verdict.error, "type", None)
    if verdict.status == 200:
        return f"unusable answer ({code})" if code else "unusable answer"
    return f"{verdict.status} {code}" if code else str(verdict.status)
