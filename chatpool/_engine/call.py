"""One call on its way through the engine.

Where a call has been, in a pool with several endpoints.

Answers that are looked at before the call ends: taken, asked for again, or refused.

What happened to a call: its history, and the events that listeners hear.
"""

from __future__ import annotations

import contextvars
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Protocol, Set, Tuple

from .._measures import RequestSize
from .._policy.retry import Deadline, RetryDecider, RetryState
from .._transport import CancelToken
from ..config import Timeout
from ..errors import ChatPoolError
from ..events import Event
from ..types import Attempt, ChatRequest, Outcome, Usage, Verdict
from .dispatcher import Dispatcher
from .leases import Lease

if TYPE_CHECKING:
    from .streaming import Reading

__all__ = [
    "DONE",
    "NEW",
    "PARKED",
    "QUEUED",
    "RUNNING",
    "TIMED_OUT",
    "Call",
    "CallOptions",
    "FailoverState",
    "OutcomeSink",
    "Review",
    "Reviewer",
    "UpstreamKey",
    "attempt_of",
    "report_end",
    "report_reask",
    "report_retry",
    "report_send",
]


UpstreamKey = Tuple[str, Optional[str]]
"""(endpoint, model): what pacing, streaks and pauses are kept for.  The endpoint is its name."""


class FailoverState:
    """The endpoints that one call has failed at, each with the time until which the call stays away from it.

    Written by the worker that runs the call, read under the scheduler's lock while it waits: never both at once.

    Attributes:
        refreshed: the endpoints whose key was fetched again for it.
        refusals: the endpoints that refused it as they would every call, with their reasons.
    """

    __slots__ = ("_until", "refreshed", "refusals")

    def __init__(self) -> None:
        self._until: Dict[UpstreamKey, float] = {}
        self.refreshed: Set[UpstreamKey] = set()
        self.refusals: Dict[UpstreamKey, ChatPoolError] = {}

    def may_go(self, key: UpstreamKey, now: float) -> bool:
        """Whether the call may be sent there."""
        return self._until.get(key, -math.inf) <= now

    def until(self, key: UpstreamKey) -> float:
        """When it may be."""
        return self._until.get(key, -math.inf)

    def leave(self, key: UpstreamKey, until: float) -> None:
        """It failed there, and stays away until then."""
        self._until[key] = until

    def refused(self, key: UpstreamKey, reason: ChatPoolError) -> None:
        """It was refused there as every call would be, and does not go there again."""
        self.refusals[key] = reason
        self._until[key] = math.inf

    def stay(self, key: UpstreamKey, others: Iterable[UpstreamKey], until: float) -> None:
        """Until then it goes to none of the others."""
        self._until.pop(key, None)
        for other in others:
            self._until[other] = max(until, self.until(other))

    def soonest(self, latest: float) -> float:
        """The first time at which it may go back to where it has been; ``latest`` at the latest."""
        return min([latest, *self._until.values()])


class Review(NamedTuple):
    """What becomes of an answer: it is taken (as ``value``), or ``request`` is sent, or the call ends with ``error``.

    Attributes:
        value: what the caller gets.
        request: the next request; its path and model are those of the one before.
        error: why the call fails.
        reason: why the answer was not taken, in a few words of ours: it stands in the history and in events.
    """

    value: Any = None
    request: Optional[ChatRequest] = None
    error: Optional[ChatPoolError] = None
    reason: str = "ok"


Reviewer = Callable[[ChatRequest, Any, int], Review]
"""Takes the request, the answer's value, and how often the call has been asked again; never raises.

It is called in the worker that has the answer, in the context of whoever made the call and with no lock held.  The
server has answered by then: the time it takes counts against the call's, and holds up nothing but this worker.
"""


TIMED_OUT = "timed out"
"""The reason of an attempt whose answer did not come in time."""

NEW, QUEUED, RUNNING, PARKED, DONE = "new", "queued", "running", "parked", "done"


class OutcomeSink(Protocol):
    """Where the outcome of a call goes: a future, or a run."""

    run_id: Optional[int]

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        """Take the outcome; called once per call, with no lock held."""

    def refusal(self, call: Call) -> Optional[ChatPoolError]:
        """Why this call must not be sent any more, None if it may be."""

    def on_fatal(self, error: ChatPoolError) -> None:
        """``error``, of a call whose outcome comes next, is one that ends other calls too."""

    def refuse(self, call: Call, scope: str, error: ChatPoolError) -> None:
        """A fatal error ended ``call``; whatever ``scope`` names besides must not be sent any more."""

    def after_fork_in_child(self, call: Call) -> None:
        """``call`` belongs to the parent process; here it is cancelled. No other thread exists, locks may be held."""


@dataclass(frozen=True)
class CallOptions:
    """How the calls of one method call are sent; shared by all calls of a run.

    Attributes:
        timeout: time limits.
        retrier: decides on retries.
        dispatcher: who hears of events.
        headers: extra HTTP headers.
        query: extra URL parameters.
        deadline: on the pool's clock, when the run's ``run_timeout`` ends; None without one.
        priority: calls of a higher one go first.
        singular: whether the call is alone and not one of a run; its ``timeout.total`` counts from the making
            of the call, and otherwise from its first send and without the time in which the pool holds it.
        review: looks at answers before they are taken; None takes them all.
        reading: what is done with the chunks of an answer that is asked for as a stream; None asks for a whole one.
        suspects: counts the things that a call asks for and that can be asked for apart; None for no such calls.
        ends_when_refused: whether calls that are all refused in the same words, each for a fault of its own, where no
            call has gone well, end those of their model.
    """

    timeout: Timeout
    retrier: RetryDecider
    dispatcher: Dispatcher
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    deadline: Optional[float] = None
    priority: int = 0
    singular: bool = False
    review: Optional[Reviewer] = None
    reading: Optional[Reading] = None
    suspects: Optional[Callable[[Call], int]] = None
    ends_when_refused: bool = True

    @cached_property
    def level(self) -> int:
        """The level of its calls: singular ones are between the runs of their priority and those of the next."""
        return 2 * self.priority + self.singular


class Call:
    """One call: what to send, where the outcome goes, and how far it has come.

    ``state`` is written under the scheduler's lock only.  ``first_request`` is what was asked; ``request`` becomes
    another one when the call is asked again.
    """

    __slots__ = (
        "attempts",
        "attempts_before",
        "context",
        "created",
        "due_at",
        "ended_by",
        "first_request",
        "first_sent",
        "grant",
        "handed_out",
        "held_before",
        "held_when_due",
        "history",
        "id",
        "index",
        "item",
        "line",
        "options",
        "paced",
        "payload",
        "reasks",
        "request",
        "retry",
        "sent_at",
        "sink",
        "size",
        "state",
        "token",
        "unreported",
        "unsendable",
        "usage",
        "visits",
    )

    def __init__(
        self,
        request: ChatRequest,
        options: CallOptions,
        sink: OutcomeSink,
        *,
        id: int,  # noqa: A002 - the event's call_id
        line: UpstreamKey,
        created: float,
        index: int = 0,
        item: Any = None,
    ) -> None:
        self.request = self.first_request = request
        self.options = options
        self.sink = sink
        self.id = id
        self.line = line
        self.created = created
        self.index = index
        self.item = item
        self.state = NEW
        self.ended_by = 0  # the thread that ended it and has to deliver its outcome
        self.attempts = 0
        self.reasks = 0  # how often it was asked again, with another request
        self.attempts_before = 0  # of the requests before this one
        self.usage: Optional[Usage] = None  # of all its answers, those that were of no use included
        self.unreported: Optional[Usage] = None  # the part of it that no listener has heard of
        self.first_sent: Optional[float] = None
        self.sent_at: Optional[float] = None  # of the attempt under way
        self.held_before = 0.0  # how long its line had been held when it was first sent
        self.due_at: Optional[float] = None  # when the wait for its next attempt was over
        self.held_when_due = 0.0  # how long its line had been held by then
        self.paced: Any = None  # the line's own note on the attempt under way
        self.size: Optional[RequestSize] = None
        self.grant: Optional[Lease] = None  # of a limit that is shared with other processes
        self.handed_out = False  # whether somebody has seen a part of its answer
        self.unsendable: Optional[ChatPoolError] = None  # why its line will never send it
        self.visits: Optional[FailoverState] = None  # where it has failed, in a pool with several endpoints
        self.payload = b""
        self.retry: Optional[RetryState] = None
        self.token: Optional[CancelToken] = None
        self.history: Tuple[Attempt, ...] = ()
        self.context: Optional[contextvars.Context] = None

    @property
    def suspects(self) -> int:
        """How many things it asks for of which one may be what the server stumbles over, 0 for no such suspicion."""
        return 0 if self.options.suspects is None else self.options.suspects(self)

    def deadline(self, held: float = 0.0) -> Deadline:
        """When the call's time ends; never while nothing has started to count.

        Args:
            held: seconds since its first send in which the pool itself held it.
        """
        options = self.options
        start = self.created if options.singular else self.first_sent
        end = math.inf if start is None else start + options.timeout.total + (0.0 if options.singular else held)
        if options.deadline is not None and options.deadline < end:
            return Deadline(options.deadline, "run_timeout")
        return Deadline(end)

    def answered(self, usage: Optional[Usage]) -> None:
        """An answer has used so many tokens."""
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage

    def outcome(self, now: float, *, value: Any = None, error: Optional[ChatPoolError] = None) -> Outcome[Any]:
        """Its end, as the user sees it."""
        if self.attempts > len(self.history):  # it was given up while it was under way
            lasted = 0.0 if self.sent_at is None else now - self.sent_at
            self.history += (Attempt("given up", None, None, lasted, None),)
        if error is not None:
            error.attempts = len(self.history)
        elapsed = 0.0 if self.first_sent is None else now - self.first_sent
        return Outcome(self.index, self.item, self.first_request, value, error, self.history, elapsed, self.usage)


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
        return TIMED_OUT if verdict.kind == "timeout" else "connection failed"
    code = getattr(verdict.error, "code", None) or getattr(verdict.error, "type", None)
    if verdict.status == 200:
        return f"unusable answer ({code})" if code else "unusable answer"
    return f"{verdict.status} {code}" if code else str(verdict.status)
