"""A call whose answer is looked at before it ends, or is asked again."""

from __future__ import annotations

from typing import Any

from ..types import ChatRequest, Verdict
from .call import Call
from .payload import payload_of
from .report import report_reask
from .review import Review

__all__ = ["ask_again", "review"]


def review(call: Call, verdict: Verdict) -> Review:
    """Have the answer of a call looked at; what it used and what was found is noted in the call."""
    call.answered(verdict.usage)
    look = call.options.review
    assert look is not None
    found = look(call.request, verdict.value, call.reasks)
    if found.reason != "ok":
        _change_last(call, reason=found.reason)
    return found


def ask_again(call: Call, request: ChatRequest, verdict: Verdict, now: float) -> None:
    """Make ``request`` the one that the call sends next.

    It is a question of its own: the retries start afresh, the call's time goes on.

    Raises:
        TypeError, ConfigurationError: its body cannot be sent as JSON.
    """
    call.payload = payload_of(request, call.options.reading)
    call.request, call.size, call.retry = request, None, None
    call.reasks += 1
    call.attempts_before = call.attempts
    _change_last(call, wait=0.0)
    report_reask(call, now, verdict)


def _change_last(call: Call, **changes: Any) -> None:
    """Correct the call's latest attempt."""
    call.history = (*call.history[:-1], call.history[-1]._replace(**changes))
