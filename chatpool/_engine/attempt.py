"""One attempt of one call: cut its time, send it, have the answer judged, decide what follows.

What a call sends, and as what it is answered.

A call whose answer is looked at before it ends, or is asked again.

One exchange of a call, and what came of it: a whole answer, or a stream that is read.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional, Set, Tuple, Union

from .._policy.health import HealthSnapshot
from .._policy.retry import Deadline, RetryDecision
from .._transport import Cancelled, CancelToken, OpenStream
from .._wire import (
    classify_exception,
    classify_response,
    classify_stream,
    encode,
    is_streamed,
    refuses_usage,
    sends_no_body,
    streamed,
    without_usage,
)
from ..clock import Clock
from ..config import Timeout
from ..errors import BudgetExceededError, ChatPoolError, DeadlineExceededError
from ..types import ChatRequest, Reply, Verdict
from .call import RUNNING, Call, Review, UpstreamKey, attempt_of, report_reask, report_retry, report_send
from .endpoints import EndpointClient, Endpoints
from .failover import Failover
from .leases import settle
from .scheduler import Scheduler
from .streaming import Reading, StreamedChunks, WholeAnswer, collect_chunks

__all__ = ["CANCELLED", "Attempted", "Attempter", "Exchanges", "ask_again", "payload_of", "reading_of", "review"]


def reading_of(request: ChatRequest, reading: Optional[Reading]) -> Optional[Reading]:
    """``reading``, but None for a request whose answer is to be collected from a stream and cannot be streamed."""
    return None if reading is collect_chunks and not is_streamed(request) else reading


def payload_of(request: ChatRequest, reading: Optional[Reading]) -> bytes:
    """The body of ``request``, encoded; as one for a stream if the answer is read as one.

    Raises:
        TypeError: it cannot be sent as JSON, or its path does not stream.
        ConfigurationError: a number in it cannot be sent as JSON.
    """
    if reading_of(request, reading) is not None:
        request = streamed(request)
    return b"" if sends_no_body(request) else encode(request.body)


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


_REFUSED = range(400, 500)


class Exchanges:
    """Makes the exchanges of calls.

    Args:
        routes: where they go.
        clock: the pool's clock.
        scheduler: knows what has succeeded before, on which the judgement of an answer depends.
    """

    def __init__(self, routes: Endpoints, clock: Clock, scheduler: Scheduler) -> None:
        self._routes = routes
        self._clock = clock
        self._scheduler = scheduler
        self._without_usage: Set[UpstreamKey] = set()  # whose server refuses stream_options

    def make(self, call: Call, timeout: Timeout, ends: float) -> Verdict:
        """Send ``call`` and judge its answer.

        Args:
            call: what to send.
            timeout: the limits for it.
            ends: when the call's time is over, on the pool's clock.

        Raises:
            Cancelled: the call was given up.
            Exception: no whole answer came.
        """
        reading, route = reading_of(call.request, call.options.reading), self._routes.of(call)
        if reading is None:
            return self._judge(call, self._send(call, timeout, route, route.transport.exchange))
        answer = self._open(call, timeout, route)
        if isinstance(answer, Reply):
            verdict = self._judge(call, answer)
            return reading(call, WholeAnswer(verdict)) if verdict.kind == "success" else verdict
        return self._read(call, answer, route, reading, ends)

    def _send(self, call: Call, timeout: Timeout, route: EndpointClient, send: Any) -> Any:
        options = call.options
        return send(
            call.request,
            route.payload(call),
            timeout=timeout,
            cancel=call.token or CancelToken(),
            headers=options.headers,
            query=options.query,
        )

    def _open(self, call: Call, timeout: Timeout, route: EndpointClient) -> Union[Reply, OpenStream]:
        """Ask for a stream; where the server refuses our asking for the usage, once more without that."""
        if call.line in self._without_usage:
            call.payload = payload_of(without_usage(call.request), call.options.reading)
        answer: Union[Reply, OpenStream] = self._send(call, timeout, route, route.transport.open)
        if not isinstance(answer, Reply) or not refuses_usage(answer, call.request):
            return answer
        call.payload = payload_of(without_usage(call.request), call.options.reading)
        answer = self._send(call, timeout, route, route.transport.open)
        if answer.status not in _REFUSED:
            self._without_usage.add(call.line)
        return answer

    def _read(self, call: Call, stream: OpenStream, route: EndpointClient, reading: Reading, ends: float) -> Verdict:
        transport = route.transport
        head = Reply(stream.status, stream.headers, b"", transport.url_of(call.request.path), transport.proxy)
        chunks = StreamedChunks(
            stream,
            call,
            ends - self._clock.now(),
            lambda reader: classify_stream(reader, head, call.request, **self._known(call)),
            lambda error: classify_exception(error, url=head.url, proxy=head.proxy),
            max_event_bytes=transport.settings.max_response_bytes,
        )
        try:
            return reading(call, chunks)
        finally:
            chunks.close()

    def _judge(self, call: Call, reply: Reply) -> Verdict:
        # Not through a dict: this runs once per call.
        return classify_response(
            reply,
            call.request,
            endpoint_proven=self._scheduler.proven(call.line[0]),
            model_proven=self._scheduler.health(call.line).proven,
            wall=self._clock.wall(),
        )

    def _known(self, call: Call) -> Dict[str, Any]:
        """What judging an answer takes besides the answer."""
        return {
            "endpoint_proven": self._scheduler.proven(call.line[0]),
            "model_proven": self._scheduler.health(call.line).proven,
            "wall": self._clock.wall(),
        }


CANCELLED = Verdict("fail")
"""The attempt tells nothing about the server: it was ended by a cancel token, or not made at all."""

_LEAST = 0.001  # seconds: a timeout of 0 would be refused as a setting, not as a lack of time


class Attempted(NamedTuple):
    """What came of an attempt: a success, a decision after a failure, or (neither) it was cancelled."""

    success: Optional[Verdict] = None
    decision: Optional[RetryDecision] = None


class Attempter:
    """Makes attempts.

    Args:
        routes: where the exchanges go.
        clock: the pool's clock.
        scheduler: knows what has succeeded before, on which some rules depend, and hears of failures.
    """

    def __init__(self, routes: Endpoints, clock: Clock, scheduler: Scheduler) -> None:
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

    def _refusal(self, call: Call, now: float, deadline: Deadline) -> Optional[RetryDecision]:
        """Why the call must not be sent now, None if it may be."""
        error = call.sink.refusal(call)
        if error is not None:
            return RetryDecision(error=error)
        if call.unsendable is not None:
            return RetryDecision(error=call.unsendable, scope="run" if _ends_all(call.unsendable) else "call")
        if now >= deadline.at:
            reason = f"the time for the call ({deadline.limit}) ran out before it could be sent"
            return RetryDecision(error=DeadlineExceededError(reason))
        refused = self._scheduler.health(call.line).rejection_at(now)
        return None if refused is None else RetryDecision(error=refused.copied("not sent: "), scope="model")

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
            return classify_exception(error, url=transport.url_of(call.request.path), proxy=transport.proxy)

    def _decide(self, call: Call, verdict: Verdict, line: HealthSnapshot, now: float, elapsed: float) -> RetryDecision:
        """What follows a failed attempt; noted in the call's history."""
        call.answered(verdict.usage)  # an answer that is of no use is billed like any other
        call.unreported = verdict.usage
        if call.handed_out:  # nothing can take back what somebody has seen
            call.history += (attempt_of(verdict, None, elapsed, self._routes.name_for(call)),)
            given_up = RetryDecision(error=verdict.error, scope=verdict.scope)
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
        self, call: Call, verdict: Verdict, line: HealthSnapshot, now: float
    ) -> Tuple[RetryDecision, Optional[ChatPoolError]]:
        """What the retry policy says, and the error that it is about."""
        if call.retry is None:
            call.retry = call.options.retrier.start(call.first_sent or now)
        auth = self._routes.of(call).transport.auth
        decision: Optional[RetryDecision] = None
        try:
            if self._failover is not None:
                self._failover.before(call)
            decision = call.options.retrier.decide(
                call.retry,
                verdict,
                attempt=call.attempts - call.attempts_before,
                now=now,
                deadline=self._deadline(call, now),
                snapshot=line,
                refreshable=auth.refreshable,
                suspects=call.suspects,
            )
            if decision.refresh_key:
                auth.refresh()
        except Exception as problem:
            error = _from_callback(problem)
            no_key = decision is not None and self._failover is not None
            return (
                RetryDecision(wait=0.0) if no_key else RetryDecision(error=error)
            ), error  # others have keys of their own
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
