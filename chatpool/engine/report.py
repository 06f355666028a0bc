"""What happened to a call: its history, and the events that listeners hear."""

from __future__ import annotations

from typing import Any, Optional

from ..errors import ChatPoolError
from ..events import Event
from ..types import Attempt, Usage, Verdict
from .call import Call

__all__ = ["attempt_of", "report_end", "report_reask", "report_retry", "report_send"]


def attempt_of(verdict: Verdict, wait: Optional[float], elapsed: float, endpoint: Optional[str]) -> Attempt:
    """An attempt for the history of its call; ``endpoint`` where there are several."""
    return Attempt(_reason(verdict), verdict.status, wait, elapsed, verdict.request_id, endpoint)


def report_send(call: Call, now: float) -> None:
    """An attempt starts."""
    dispatcher = call.options.dispatcher
    if dispatcher.wants("sent"):
        dispatcher.emit(Event("sent", call.id, call.attempts, now, call.sink.run_id, call.line[1]))


def report_retry(call: Call, attempt: Attempt, now: float) -> None:
    """``attempt`` has failed and another follows."""
    if call.options.dispatcher.wants("retrying"):
        _emit("retrying", call, now, attempt, attempt.reason, call.unreported)


def report_reask(call: Call, now: float, verdict: Verdict) -> None:
    """The answer, of ``verdict``, was not taken and the call is asked again."""
    if call.options.dispatcher.wants("reasking"):
        last = call.history[-1]
        _emit("reasking", call, now, last, last.reason, verdict.usage, verdict.value)


def report_end(
    call: Call, now: float, *, error: Optional[ChatPoolError], usage: Optional[Usage], answer: Any = None
) -> None:
    """The call has its outcome; ``usage`` is of ``answer``, where there is one."""
    kind = "succeeded" if error is None else "failed"
    if call.options.dispatcher.wants(kind):
        last = call.history[-1] if call.history else _NOTHING_SENT
        _emit(kind, call, now, last, None if error is None else type(error).__name__, usage, answer)


_NOTHING_SENT = Attempt("", None, None, None, None)  # type: ignore[arg-type]  # an event without an attempt


def _emit(
    kind: str,
    call: Call,
    now: float,
    attempt: Attempt,
    reason: Optional[str],
    usage: Optional[Usage],
    answer: Any = None,
) -> None:
    _, status, wait, elapsed, request_id, _ = attempt
    # One positional call: this runs once per call, and _replace would cost as much again each time.
    event = Event(
        kind,
        call.id,
        call.attempts,
        now,
        call.sink.run_id,
        call.line[1],
        reason,
        status,
        wait,
        elapsed,
        usage,
        request_id,
        _model_in(answer),
    )
    call.options.dispatcher.emit(event)


def _model_in(answer: Any) -> Optional[str]:
    model = answer.get("model") if isinstance(answer, dict) else getattr(answer, "model", None)
    return model if isinstance(model, str) else None


def _reason(verdict: Verdict) -> str:
    """Why an attempt failed, in a few words, without anything the caller wrote."""
    if verdict.kind == "success":
        return "ok"
    if verdict.status is None:
        return "timed out" if verdict.kind == "timeout" else "connection failed"
    code = getattr(verdict.error, "code", None) or getattr(verdict.error, "type", None)
    if verdict.status == 200:
        return f"unusable answer ({code})" if code else "unusable answer"
    return f"{verdict.status} {code}" if code else str(verdict.status)
