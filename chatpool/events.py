"""Steps in the life of a call, as values that listeners receive."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

from .types import Usage

__all__ = ["Event", "Listener"]


class Event(NamedTuple):
    """One step in the life of a call.

    Listeners are called in the thread where the step happens, with no lock held, in order per call;
    events of different calls may arrive at the same time.  A listener that raises is logged and dropped.

    Each call has a context of its own (``contextvars``), a copy of its caller's: what a listener sets in context
    variables on ``"queued"`` is seen by every attempt, callback and later event of that call, in whichever thread, and
    by nothing else.  Set nothing there that has to be reset in the same context: the last event may be reported in a
    copy of it.

    Attributes:
        kind: ``"queued"`` (the call was made; ``attempt`` is 0), ``"sent"`` (an attempt starts),
            ``"retrying"`` (it failed, the next one follows after ``wait``),
            ``"reasking"`` (it brought an answer that ``parse=`` cannot use, a reask follows),
            ``"falling_back"`` (the request is given up, a fallback follows),
            ``"succeeded"`` or ``"failed"`` (the outcome is final; ``attempt`` is 0 when nothing was sent).
            A call that gets the outcome of an identical one (``dedupe=``) has only its last event.
        call_id: number of the call, unique within its pool.
        attempt: number of the attempt, from 1.
        time: moment of the step, in seconds of the pool's monotonic clock.
        run_id: number of the run the call belongs to, None for a single call.
        model: the request's model, None if it has none.
        reason: why the attempt failed, or its answer was rejected, in a few words; never the prompt, the answer or
            the key.
        status: HTTP status of the attempt, None without a response.
        wait: seconds until the next attempt (``"retrying"``, and ``"failed"`` of a call that ended in that wait).
        elapsed: seconds the attempt took (not on ``"sent"``).
        usage: tokens the answer used (``"succeeded"``, ``"reasking"``, and ``"retrying"``, ``"falling_back"`` or
            ``"failed"`` after an answer that was rejected, or was of no use).
        request_id: the server's ``x-request-id``.
        response_model: the model that answered, by its own account, where ``usage`` is of its answer.
        endpoint: the name of the endpoint it goes or went to: its ``base_url``, where it was given no other; None on
            ``"queued"``, as it is chosen later.
        operation: ``"chat"``, ``"text_completion"``, ``"responses"``, ``"embeddings"``, or ``"request"`` for any other
            path.
        queued: seconds from the making of the call to its first attempt (on the first ``"sent"`` and at the end).
        total: seconds from the making of the call to its end (``"succeeded"`` and ``"failed"``).
        finish_reason: why the model stopped, where there is an answer that says so.
        cached: True at the end of a call that was answered from the pool's cache, which is its only event unless
            something was sent that fell back on it; None on all others.
        first_chunk: seconds from the send of the last attempt to the first piece of its answer, for streams.
        service_tier: the ``service_tier`` of the request, None if it names none (not on ``"queued"`` and ``"sent"``).
        fallback: the number of the fallback that the attempt sent, 0 for the request itself.
    """

    kind: str
    call_id: int
    attempt: int
    time: float
    run_id: Optional[int] = None
    model: Optional[str] = None
    reason: Optional[str] = None
    status: Optional[int] = None
    wait: Optional[float] = None
    elapsed: Optional[float] = None
    usage: Optional[Usage] = None
    request_id: Optional[str] = None
    response_model: Optional[str] = None
    endpoint: Optional[str] = None
    operation: str = "request"
    queued: Optional[float] = None
    total: Optional[float] = None
    finish_reason: Optional[str] = None
    first_chunk: Optional[float] = None
    service_tier: Optional[str] = None
    fallback: int = 0
    cached: Optional[bool] = None


Listener = Callable[[Event], None]
