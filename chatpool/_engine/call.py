"""One call on its way through the engine: its request, state, history and clocks, and the events it causes."""

from __future__ import annotations

import contextvars
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Protocol, Set, Tuple, Union

from .._policy.budget import BudgetReservation
from .._policy.pacing import PacedSend
from .._policy.retry import Deadline, RetryDecider, RetryState
from .._transport import CancelToken
from .._values import LazyBody, RequestSize, Verdict
from .._wire import model_and_reason, operation_name
from .._wire.response import HTTP_OK
from ..config import Timeout
from ..errors import ChatPoolError
from ..events import Event
from ..prices import Charge
from ..types import Attempt, ChatChunk, ChatRequest, Outcome, Usage
from .background_state import BackgroundState
from .dispatcher import Dispatcher
from .fallback_list import Fallbacks
from .leases import Lease

__all__ = [
    "DONE",
    "NEW",
    "PARKED",
    "QUEUED",
    "RUNNING",
    "TIMED_OUT",
    "Call",
    "CallOptions",
    "Chunks",
    "FailoverState",
    "OutcomeSink",
    "Reading",
    "Review",
    "Reviewer",
    "UpstreamKey",
    "attempt_of",
    "failure_reason",
    "report_end",
    "report_fallback",
    "report_queued",
    "report_reask",
    "report_retry",
    "report_send",
]

NEW, QUEUED, RUNNING, PARKED, DONE = "new", "queued", "running", "parked", "done"

TIMED_OUT = "timed out"
"""``Attempt.reason`` of an attempt that brought no answer in time."""

UpstreamKey = Tuple[str, Optional[str]]
"""(endpoint, model): each has its own pacing, failure streak and pauses.  The endpoint is its name."""


class Call:
    """One call: its request, the sink of its outcome, and its progress.

    ``state`` is written under the scheduler's lock only.  ``first_request`` is the caller's; ``request`` becomes
    another one when the call is asked again, or falls back.

    All clocks are on the pool's clock.  While an upstream is blocked because its server is down, its meter of blocked
    seconds runs (see :meth:`Upstream.blocked_seconds`); two readings of it tell how long it was blocked between them.
    """

    __slots__ = (
        "attempts",
        "attempts_before",
        "background",
        "blocked_seconds_at_due",
        "blocked_seconds_at_send",
        "cache_key",
        "cancel_token",
        "charges",
        "context",
        "created_at",
        "due_at",
        "ended_by",
        "failover_state",
        "fallback",
        "first_chunk_seconds",
        "first_request",
        "first_sent_at",
        "history",
        "id",
        "index",
        "item",
        "lease",
        "options",
        "paced_send",
        "partly_delivered",
        "payload",
        "reasks",
        "request",
        "reservation",
        "retry",
        "sent_at",
        "sink",
        "size",
        "state",
        "unreported_usage",
        "unsendable",
        "upstream",
        "upstream_key",
        "usage",
    )

    def __init__(
        self,
        request: ChatRequest,
        options: CallOptions,
        sink: OutcomeSink,
        *,
        id: int,  # noqa: A002 - the event's call_id
        upstream_key: UpstreamKey,
        created_at: float,
        index: int = 0,
        item: Any = None,
    ) -> None:
        self.request = self.first_request = request
        self.options = options
        self.sink = sink
        self.id = id
        self.upstream_key = upstream_key
        self.upstream: Any = None  # that of the key, once the call was sent to it: found without a search among all
        self.index = index
        self.item = item
        self.state = NEW
        self.ended_by = 0  # the thread that ended it and has to deliver its outcome
        self.attempts = 0
        self.reasks = 0  # number of times it was asked again, with another request
        self.attempts_before = 0  # of the requests before this one
        self.fallback = 0  # number of the one that is sent, 0 for the request itself
        self.charges: Tuple[Charge, ...] = ()  # for the requests before this fallback
        self.usage: Optional[Usage] = None  # of all its answers since then, unusable ones included
        self.unreported_usage: Optional[Usage] = None  # the part of it that no event has reported yet
        self.created_at = created_at
        self.first_sent_at: Optional[float] = None
        self.sent_at: Optional[float] = None  # of the attempt under way
        self.first_chunk_seconds: Optional[float] = None  # after it was sent
        self.due_at: Optional[float] = None  # end of the wait for its next attempt
        # Readings of its upstream's meter; time in which the pool itself paced the call is taken off the first.
        self.blocked_seconds_at_send = 0.0
        self.blocked_seconds_at_due = 0.0
        # Notes of the policies about the attempt under way; they get them back when it returns.
        self.paced_send: Optional[PacedSend] = None
        self.reservation: Optional[BudgetReservation] = None
        self.size: Optional[RequestSize] = None
        self.lease: Optional[Lease] = None  # of a limit that is shared with other processes
        self.partly_delivered = False  # whether the caller has a part of its answer
        self.unsendable: Optional[ChatPoolError] = None  # the reason for which its upstream will never send it
        self.failover_state: Optional[FailoverState] = None  # in a pool with several endpoints, after a failure
        self.payload: Union[bytes, LazyBody] = b""
        self.retry: Optional[RetryState] = None
        self.cancel_token: Optional[CancelToken] = None
        self.cache_key: Any = None  # what the pool's cache knows it by; None where its answer is not kept
        self.background: Optional[BackgroundState] = None  # from the first answer on that promises one for later
        self.history: Tuple[Attempt, ...] = ()
        self.context = contextvars.copy_context()  # of the thread that makes it, and the call's own from now on

    def move_to(self, key: UpstreamKey) -> None:
        """Make ``key`` that of the upstream that it is sent to next."""
        self.upstream_key, self.upstream = key, None

    def settle_lease(self, verdict: Optional[Verdict]) -> Optional[Lease]:
        """Settle the lease of an attempt that has ended, or (None) was not made; return it, None without one."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.settle(verdict)
        return lease

    @property
    def suspects(self) -> int:
        """The number of things it asks for, one of which may make the server fail; 0 where none is suspected."""
        return 0 if self.options.suspects is None else self.options.suspects(self)

    @property
    def polls(self) -> bool:
        """True while its next exchange asks for a response that is made in the background."""
        return self.background is not None and self.background.response is not None

    def deadline(self, blocked_seconds: float = 0.0, *, begun: bool = False) -> Deadline:
        """Return the end of the call's time; it is infinite before the time has begun to count.

        Args:
            blocked_seconds: time since its first send in which the pool itself kept the call back.
            begun: whether the answer has begun, and is given away chunk by chunk.
        """
        options = self.options
        start, grace = (self.created_at, 0.0) if options.counts_waits else (self.first_sent_at, blocked_seconds)
        timeout = options.timeout
        total, limit = (timeout.total, "timeout.total") if self.background is None else timeout.in_background
        at = math.inf if start is None else start + total + grace
        if options.deadline is not None and options.deadline < at:
            return Deadline(options.deadline, options.deadline_limit)
        if options.begins_by is not None and options.begins_by < at and not begun:
            return Deadline(options.begins_by, options.deadline_limit)
        return Deadline(at, limit)

    def add_usage(self, usage: Optional[Usage]) -> None:
        """Add the tokens of one answer."""
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage

    def begin_fallback(self, number: int, request: ChatRequest, answer: Any = None) -> None:
        """Make a fallback the request: its retries and reasks start afresh, and the call's time goes on.

        Args:
            number: of the fallback.
            request: the new one.
            answer: the last answer to the one before, where there is one.
        """
        self.charges = self._all_charges(answer)
        self.usage = self.unreported_usage = self.retry = self.size = self.failover_state = self.unsendable = None
        self.fallback, self.request = number, request
        self.reasks, self.attempts_before = 0, self.attempts

    def _all_charges(self, answer: Any) -> Tuple[Charge, ...]:
        """Return the charges for all requests that were sent; ``answer`` is the last answer to this one."""
        if self.usage is None:
            return self.charges
        answered, _ = model_and_reason(answer)
        return (*self.charges, Charge(self.usage, self.request.model, answered, self.request.service_tier))

    def complete_history(self, now: float) -> None:
        """Note the attempt that was under way when the call was given up, if there was one."""
        if self.attempts > len(self.history):
            began_at = self.background.began_at if self.background is not None and self.polls else self.sent_at
            lasted = 0.0 if began_at is None else now - began_at
            self.history += (Attempt("given up", None, None, lasted, None, None, self.fallback),)

    def outcome(self, now: float, *, value: Any = None, error: Optional[ChatPoolError] = None) -> Outcome[Any]:
        """Return the outcome of the call for the caller."""
        self.complete_history(now)
        if error is not None:
            error.attempts = len(self.history)
        elapsed = 0.0 if self.first_sent_at is None else now - self.first_sent_at
        row = self.index, self.item, self.first_request
        if not self.fallback:
            return Outcome(*row, value, error, self.history, elapsed, self.usage)
        charges = self._all_charges(value)
        usages = [charge.usage for charge in charges if charge.usage is not None]
        usage = sum(usages[1:], usages[0]) if usages else None
        return Outcome(*row, value, error, self.history, elapsed, usage, self.fallback, charges)


class Chunks(Protocol):
    """The chunks of a stream.

    Attributes:
        verdict: the verdict on the stream, once it has ended.
    """

    verdict: Optional[Verdict]

    def next(self) -> Optional[ChatChunk]:
        """Return the next chunk, None at the end.

        Raises:
            Cancelled: the call was given up, or reading was stopped.
        """

    def stop(self) -> None:
        """Stop reading, from any thread: a read that waits is woken."""


Reading = Callable[[Call, Chunks], Verdict]
"""Consumes the chunks of a call in its worker; sets ``call.partly_delivered`` when it gives one away."""


@dataclass(frozen=True)
class CallOptions:
    """Options of the calls of one method call; shared by all calls of a run.

    Attributes:
        timeout: time limits.
        retrier: decides on retries.
        dispatcher: the receivers of events.
        headers: extra HTTP headers.
        query: extra URL parameters.
        deadline: on the pool's clock, when the time of the run, or of the block of ``chatpool.deadline``, ends; None
            without one.
        begins_by: the same for a stream whose chunks are given away: until its first one only.
        deadline_limit: the parameter that these two come from.
        priority: calls of a higher one go first.
        fails_when_down: whether the call ends at once, rather than waits, while its server is known to be down.
        waits_for_day: whether the call waits, however long, while a limit per day is used up.
        is_single: whether the call is alone and not one of a run; its ``timeout.total`` counts from the making
            of the call, and otherwise, and where it waits for the day, from its first send and without the time in
            which the pool keeps it back.
        review: reviews answers before they are accepted; None accepts them all.
        reading: consumes the chunks of an answer that is requested as a stream; None requests a whole one.
        suspects: counts the things that a call asks for and that can be asked for apart; None for no such calls.
        ends_when_refused: whether equal refusals of all calls of a model, each for a fault in the call and none after
            a success, end the other calls of that model.
        fallbacks: what is sent in the place of a request that fails; None for nothing.
        samples: how many answers an item gets; with several, ``n`` is the pool's own, and lowered to what a server
            gives.
    """

    timeout: Timeout
    retrier: RetryDecider
    dispatcher: Dispatcher
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    deadline: Optional[float] = None
    begins_by: Optional[float] = None
    deadline_limit: str = "run_timeout"
    priority: int = 0
    fails_when_down: bool = False
    waits_for_day: bool = False
    is_single: bool = False
    review: Optional[Reviewer] = None
    reading: Optional[Reading] = None
    suspects: Optional[Callable[[Call], int]] = None
    ends_when_refused: bool = True
    fallbacks: Optional[Fallbacks] = None
    samples: int = 1

    @cached_property
    def level(self) -> int:
        """The level of its calls: single ones are between the runs of their priority and those of the next."""
        return 2 * self.priority + self.is_single

    @cached_property
    def counts_waits(self) -> bool:
        """True if the time in which the pool keeps a call back counts against ``timeout.total``."""
        return self.is_single and not self.waits_for_day


class OutcomeSink(Protocol):
    """The receiver of the outcome of a call: a future, or a run."""

    run_id: Optional[int]

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        """Take the outcome; called once per call, with no lock held."""

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        """Return the reason why this call must not be sent any more, None if it may be."""

    def kept_answer(self, call: Call) -> Any:
        """Return the value of the answer that is kept for the fallback of a call; None where it is to be sent.

        Called once for each fallback that a call begins, with no lock held, in the call's own context.
        """

    def keep_background(self, call: Call, facts: Mapping[str, str]) -> bool:
        """Note where the response to ``call`` is made in the background; return whether a later run can find it.

        Called in the worker, with no lock held, before the response is asked for; ``Engine.resume`` takes ``facts``.
        """

    def on_fatal(self, error: ChatPoolError) -> None:
        """Note that the next outcome is one with ``error``, which ends other calls too."""

    def refuse(self, call: Call, scope: str, error: ChatPoolError) -> None:
        """Stop sending calls of ``scope``: a fatal error ended ``call``."""

    def after_fork_in_child(self, call: Call) -> None:
        """Cancel the parent's ``call`` in this child process. No other thread exists, and locks may stay held."""


class Review(NamedTuple):
    """The result of a review: accept the answer as ``value``, send ``request``, or end the call with ``error``.

    Attributes:
        value: what the caller gets.
        request: the next request; its path and model are those of the one before.
        error: the error that the call fails with.
        reason: why the answer was not accepted, in a few words of the package; it is in the history and in events.
        is_of_answer: whether an error is about the answer, so that another one may be better.
    """

    value: Any = None
    request: Optional[ChatRequest] = None
    error: Optional[ChatPoolError] = None
    reason: str = "ok"
    is_of_answer: bool = True


Reviewer = Callable[[ChatRequest, Any, int], Review]
"""Takes the request, the answer's value, and the number of times the call was asked again; never raises.

It runs in the worker that has the answer, in the caller's context and with no lock held.  The server has answered by
then: the time of the review counts against the call's, and keeps only this worker busy.
"""


class FailoverState:
    """Failover state of one call: the endpoints it failed on, and until when to avoid each.

    Written by the worker that runs the call, read under the scheduler's lock while it waits: never both at once.

    Attributes:
        refreshed: the endpoints whose key was fetched again for the call.
        refusals: the endpoints that refused it as they would every call, with their reasons.
    """

    __slots__ = ("_until", "refreshed", "refusals")

    def __init__(self) -> None:
        self._until: Dict[UpstreamKey, float] = {}
        self.refreshed: Set[UpstreamKey] = set()
        self.refusals: Dict[UpstreamKey, ChatPoolError] = {}

    def may_use(self, key: UpstreamKey, now: float) -> bool:
        """Return whether the call may be sent to an upstream."""
        return self._until.get(key, -math.inf) <= now

    def avoided_until(self, key: UpstreamKey) -> float:
        """Return the time until which the call avoids an upstream."""
        return self._until.get(key, -math.inf)

    def avoid(self, key: UpstreamKey, until: float) -> None:
        """Avoid an upstream after a failure."""
        self._until[key] = until

    def exclude(self, key: UpstreamKey, reason: ChatPoolError) -> None:
        """Avoid an upstream for ever: it refused the call as it would every call."""
        self.refusals[key] = reason
        self._until[key] = math.inf

    def pin(self, key: UpstreamKey, others: Iterable[UpstreamKey], until: float) -> None:
        """Send the call to no other upstream before ``until``."""
        self._until.pop(key, None)
        for other in others:
            self._until[other] = max(until, self.avoided_until(other))

    def next_usable(self, latest: float) -> float:
        """Return the first time at which an avoided upstream may be used again, at most ``latest``."""
        return min([latest, *self._until.values()])


def attempt_of(
    verdict: Verdict, wait: Optional[float], elapsed: float, endpoint: Optional[str], fallback: int = 0
) -> Attempt:
    """Return an attempt for the history of its call; ``endpoint`` is its name where there are several."""
    return Attempt(failure_reason(verdict), verdict.status, wait, elapsed, verdict.request_id, endpoint, fallback)


def failure_reason(verdict: Verdict) -> str:
    """Return the reason of a failure in a few words, without any text of the caller's."""
    if verdict.kind == "success":
        return "ok"
    if verdict.status is None:
        return TIMED_OUT if verdict.kind == "timeout" else "connection failed"
    code = getattr(verdict.error, "code", None) or getattr(verdict.error, "type", None)
    if verdict.status == HTTP_OK:
        return f"unusable answer ({code})" if code else "unusable answer"
    return f"{verdict.status} {code}" if code else str(verdict.status)


def report_queued(call: Call) -> None:
    """Emit the event of a call that was made, in the call's own context: what a listener sets there stays with it."""
    dispatcher = call.options.dispatcher
    if dispatcher.wants("queued"):
        model, operation = call.upstream_key[1], operation_name(call.request.path)
        event = Event("queued", call.id, 0, call.created_at, call.sink.run_id, model, operation=operation)
        call.context.run(dispatcher.emit, event)


def report_send(call: Call, now: float) -> None:
    """Emit the event of an attempt that starts."""
    dispatcher = call.options.dispatcher
    if dispatcher.wants("sent"):
        endpoint, model = call.upstream_key
        event = Event("sent", call.id, call.attempts, now, call.sink.run_id, model, endpoint=endpoint)
        queued = now - call.created_at if call.attempts == 1 else None
        operation = operation_name(call.request.path)
        dispatcher.emit(event._replace(operation=operation, queued=queued, fallback=call.fallback))


def report_retry(call: Call, attempt: Attempt, now: float) -> None:
    """Emit the event of a failed attempt that another one follows."""
    if call.options.dispatcher.wants("retrying"):
        _emit("retrying", call, now, attempt, attempt.reason, call.unreported_usage)


def report_reask(call: Call, now: float, verdict: Verdict) -> None:
    """Emit the event of an answer, of ``verdict``, that was not accepted: the call is asked again."""
    if call.options.dispatcher.wants("reasking"):
        last = call.history[-1]
        _emit("reasking", call, now, last, last.reason, verdict.usage, verdict.value)


def report_fallback(call: Call, now: float, error: ChatPoolError, verdict: Optional[Verdict]) -> None:
    """Emit the event of a request that is given up for a fallback; ``verdict`` is that of an answer not accepted."""
    if call.options.dispatcher.wants("falling_back"):
        last = call.history[-1]
        usage, answer = (call.unreported_usage, None) if verdict is None else (verdict.usage, verdict.value)
        _emit("falling_back", call, now, last, type(error).__name__, usage, answer)


def report_end(
    call: Call,
    now: float,
    *,
    error: Optional[ChatPoolError],
    usage: Optional[Usage],
    answer: Any = None,
    cached: bool = False,
) -> None:
    """Emit the event of a call that has its outcome; ``usage`` is of ``answer``, where there is one."""
    kind = "succeeded" if error is None else "failed"
    if call.options.dispatcher.wants(kind):
        call.complete_history(now)
        last = call.history[-1] if call.history else _NOTHING_SENT
        _emit(kind, call, now, last, None if error is None else type(error).__name__, usage, answer, cached)


_NOTHING_SENT = Attempt("", None, None, None, None)  # type: ignore[arg-type]  # an event without an attempt


def _emit(
    kind: str,
    call: Call,
    now: float,
    attempt: Attempt,
    reason: Optional[str],
    usage: Optional[Usage],
    answer: Any = None,
    cached: bool = False,
) -> None:
    _, status, wait, elapsed, request_id, _, _ = attempt
    endpoint, model = call.upstream_key
    response_model, finish_reason = model_and_reason(answer)
    has_ended = kind in ("succeeded", "failed")
    # One positional call: this runs once per call, and _replace would cost as much again each time.
    event = Event(
        kind,
        call.id,
        call.attempts,
        now,
        call.sink.run_id,
        model,
        reason,
        status,
        wait,
        elapsed,
        usage,
        request_id,
        response_model,
        endpoint,
        operation_name(call.request.path),
        call.first_sent_at - call.created_at if has_ended and call.first_sent_at is not None else None,
        now - call.created_at if has_ended else None,
        finish_reason,
        call.first_chunk_seconds,
        call.request.service_tier,
        call.fallback,
        cached or None,
    )
    call.options.dispatcher.emit(event)
