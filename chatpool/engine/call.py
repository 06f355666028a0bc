"""One call on its way through the engine."""

from __future__ import annotations

import contextvars
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Protocol, Tuple

from ..config import Timeout
from ..errors import ChatPoolError
from ..measures import RequestSize
from ..policy.retry import Deadline, Retrier, RetryState
from ..transport import CancelToken
from ..types import Attempt, ChatRequest, Outcome, Usage
from .dispatch import Dispatcher
from .grants import Grant
from .review import Reviewer
from .visits import LineKey, Visits

if TYPE_CHECKING:
    from .streams import Reading

__all__ = ["DONE", "NEW", "PARKED", "QUEUED", "RUNNING", "Call", "CallOptions", "LineKey", "Sink"]

NEW, QUEUED, RUNNING, PARKED, DONE = "new", "queued", "running", "parked", "done"


class Sink(Protocol):
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
    retrier: Retrier
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
        sink: Sink,
        *,
        id: int,  # noqa: A002 - the event's call_id
        line: LineKey,
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
        self.grant: Optional[Grant] = None  # of a limit that is shared with other processes
        self.handed_out = False  # whether somebody has seen a part of its answer
        self.unsendable: Optional[ChatPoolError] = None  # why its line will never send it
        self.visits: Optional[Visits] = None  # where it has failed, in a pool with several endpoints
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
