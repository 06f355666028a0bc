"""One attempt of one call: cut its time, send it, have the answer judged, decide what follows."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple

from ..clock import Clock
from ..config import Timeout
from ..errors import BudgetExceededError, ChatPoolError, DeadlineExceededError
from ..policy.health import LineView
from ..policy.retry import Deadline, Decision
from ..transport import Cancelled
from ..types import Verdict
from ..wire import judge_exception
from .call import RUNNING, Call
from .exchanges import Exchanges
from .failover import Failover
from .grants import settle
from .report import attempt_of, report_retry, report_send
from .routes import Routes
from .scheduler import Scheduler

__all__ = ["CANCELLED", "Attempted", "Attempter"]

CANCELLED = Verdict("fail")
"""The attempt tells nothing about the server: it was ended by a cancel token, or not made at all."""

_LEAST = 0.001  # seconds: a timeout of 0 would be refused as a setting, not as a lack of time


class Attempted(NamedTuple):
    """What came of an attempt: a success, a decision after a failure, or (neither) it was cancelled."""

    success: Optional[Verdict] = None
    decision: Optional[Decision] = None


class Attempter:
    """Makes attempts.

    Args:
        routes: where the exchanges go.
        clock: the pool's clock.
        scheduler: knows what has succeeded before, on which some rules depend, and hears of failures.
    """

    def __init__(self, routes: Routes, clock: Clock, scheduler: Scheduler) -> None:
        self._routes = routes
        self._clock = clock
        self._scheduler = scheduler
        self._exchanges = Exchanges(routes, clock, scheduler)
        self._failover = Failover(routes, scheduler) if routes.several else None

    def attempt(self, call: Call) -> Attempted:
        """Make one attempt, unless something speaks against it.  A success is not yet known to the scheduler."""
        now = self._in_time(call)
        deadline = self._deadline(call, now)
        refusal = self._refusal(call, now, deadline)
        if refusal is not None:
            self._scheduler.returned(call, CANCELLED, now)
            settle(call, None)
            return Attempted(decision=refusal)
        call.attempts += 1
        report_send(call, now)
        left = deadline.at - now
        verdict = self._send(call, deadline.at, left)
        ended = self._clock.now()
        grant = settle(call, verdict)
        if verdict is CANCELLED:
            self._scheduler.returned(call, CANCELLED, ended)
            return Attempted()
        if verdict.kind == "success":
            call.history += (attempt_of(verdict, None, ended - now, self._routes.name_for(call)),)
            return Attempted(verdict)
        # An attempt that had less time than it may take says nothing about the server when it takes longer.
        cut = verdict.kind == "timeout" and verdict.status is None and left < call.options.timeout.attempt
        line = self._scheduler.returned(call, CANCELLED if cut else verdict, ended)
        if grant is not None and verdict.kind == "throttled":
            grant.share_pause(self._scheduler.paused_for(call, ended))
        if line.unanimous:
            said = "every call is refused in these words: "
            error = None if verdict.error is None else verdict.error.copied(said)
            verdict = verdict._replace(kind="fatal", scope="model", error=error)
        return Attempted(decision=self._decide(call, verdict, line, ended, ended - now))

    def _in_time(self, call: Call) -> float:
        """Wait for another slot where a busy machine has kept the worker from using that of the call in time.

        Returns:
            The time.
        """
        now = self._clock.now()
        while call.grant is not None and call.state == RUNNING and call.grant.is_late(now):
            call.grant = call.grant.renewed(self._clock)
            self._scheduler.wait_inline(call, call.grant.due, self._clock)
            now = self._clock.now()
        return now

    def _deadline(self, call: Call, now: float) -> Deadline:
        """When the call's time ends; in a run the time in which the pool itself holds it does not count."""
        if call.first_sent is None:
            call.first_sent = now
            return call.deadline()
        return call.deadline(0.0 if call.options.singular else self._scheduler.held(call, now))

    def _refusal(self, call: Call, now: float, deadline: Deadline) -> Optional[Decision]:
        """Why the call must not be sent now, None if it may be."""
        error = call.sink.refusal(call)
        if error is not None:
            return Decision(error=error)
        if call.unsendable is not None:
            return Decision(error=call.unsendable, scope="run" if _ends_all(call.unsendable) else "call")
        if now >= deadline.at:
            reason = f"the time for the call ({deadline.limit}) ran out before it could be sent"
            return Decision(error=DeadlineExceededError(reason))
        refused = self._scheduler.health(call.line).refusal_at(now)
        return None if refused is None else Decision(error=refused.copied("not sent: "), scope="model")

    def _send(self, call: Call, ends: float, left: float) -> Verdict:
        """One exchange, within the ``left`` seconds of the call's time, which ``ends`` then."""
        try:
            return self._exchanges.make(call, _cut(call.options.timeout, left), ends)
        except Cancelled:
            return CANCELLED
        except ChatPoolError as error:  # the key could not be fetched
            return Verdict("fail", error=error) if self._failover is None else Verdict("fatal", "endpoint", error)
        except Exception as error:
            transport = self._routes.of(call).transport
            return judge_exception(error, url=transport.url_of(call.request.path), proxy=transport.proxy)

    def _decide(self, call: Call, verdict: Verdict, line: LineView, now: float, elapsed: float) -> Decision:
        """What follows a failed attempt; noted in the call's history."""
        call.answered(verdict.usage)  # an answer that is of no use is billed like any other
        call.unreported = verdict.usage
        if call.handed_out:  # nothing can take back what somebody has seen
            call.history += (attempt_of(verdict, None, elapsed, self._routes.name_for(call)),)
            given_up = Decision(error=verdict.error, scope=verdict.scope)
            return given_up if self._failover is None else self._failover.follow(call, verdict, given_up, now, elapsed)
        decision, reason = self._decision(call, verdict, line, now)
        if self._failover is not None:
            decision = self._failover.follow(call, verdict._replace(error=reason), decision, now, elapsed)
        attempt = attempt_of(verdict, decision.wait, elapsed, self._routes.name_for(call))
        call.history += (attempt,)
        if decision.wait is not None and call.state == RUNNING:
            report_retry(call, attempt, now)
            call.unreported = None
        return decision

    def _decision(
        self, call: Call, verdict: Verdict, line: LineView, now: float
    ) -> Tuple[Decision, Optional[ChatPoolError]]:
        """What the retry policy says, and the error that it is about."""
        if call.retry is None:
            call.retry = call.options.retrier.start(call.first_sent or now)
        auth = self._routes.of(call).transport.auth
        decision: Optional[Decision] = None
        try:
            if self._failover is not None:
                self._failover.before(call)
            decision = call.options.retrier.decide(
                call.retry,
                verdict,
                attempt=call.attempts - call.attempts_before,
                now=now,
                deadline=self._deadline(call, now),
                line=line,
                refreshable=auth.refreshable,
                suspects=call.suspects,
            )
            if decision.refresh_key:
                auth.refresh()
        except Exception as problem:
            error = _from_callback(problem)
            no_key = decision is not None and self._failover is not None
            return (Decision(wait=0.0) if no_key else Decision(error=error)), error  # others have keys of their own
        return decision, verdict.error


def _ends_all(error: ChatPoolError) -> bool:
    """Whether nothing else may be sent either."""
    return isinstance(error, BudgetExceededError)


def _cut(timeout: Timeout, left: float) -> Timeout:
    """The limits, each cut to the time that is left."""
    if left >= timeout.attempt:
        return timeout
    left = max(left, _LEAST)
    read = timeout.read if timeout.read is None else min(timeout.read, left)
    return Timeout(connect=min(timeout.connect, left), read=read, attempt=left, total=timeout.total)


def _from_callback(error: Exception) -> ChatPoolError:
    if isinstance(error, ChatPoolError):
        return error
    wrapped = ChatPoolError(f"a callback of the retry policy raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
