"""One attempt of one call: limit its time, send it, have the answer classified, decide what follows."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Optional, Set, Tuple, Union

from .._policy.circuit_breaker import FAILURE_KINDS
from .._policy.health import HealthSnapshot
from .._policy.retry import Deadline, RetryDecision, RetryState
from .._transport import AnswerFile, Cancelled, CancelToken, OpenStream, payload_of, with_files_of
from .._values import FileFault, HTTPResponse, LazyBody, Verdict
from .._wire import (
    StreamReader,
    classify_exception,
    classify_response,
    classify_stream,
    is_background,
    is_refusal,
    is_streamed,
    refuses_usage,
    sends_no_body,
    streamed,
    without_usage,
)
from ..clock import Clock
from ..config import Timeout
from ..errors import BudgetExceededError, ChatPoolError, ConfigurationError, DayLimitError, DeadlineExceededError
from ..types import ChatRequest
from .background_state import BackgroundState, poll_wait
from .call import RUNNING, Call, Reading, Review, UpstreamKey, attempt_of, report_reask, report_retry, report_send
from .choice_limits import ChoiceLimits
from .day_limits import after_day_refusal, is_of_own_day, unsent_on_day
from .endpoints import EndpointClient, Endpoints
from .failover import Failover
from .scheduler import Scheduler
from .streaming import StreamedChunks, WholeAnswer, collect_chunks
from .upstream import UNSENT

__all__ = [
    "CANCELLED",
    "AttemptResult",
    "Attempter",
    "StartedAttempt",
    "ask_again",
    "change_last_attempt",
    "encode_changed",
    "encode_payload",
    "limited",
    "note_wait",
    "review_answer",
]

CANCELLED = Verdict("fail")
"""Verdict of an attempt that tells nothing about the server: a cancel token ended it."""

_NO_STREAM = "a response in the background is no stream: leave out background=True, or use pool.responses(...)"

_MIN_TIMEOUT_SECONDS = 0.001  # a timeout of 0 would be refused as a setting, not as a lack of time


class AttemptResult(NamedTuple):
    """Result of an attempt: a success and when it came, a decision, or (neither) it was cancelled."""

    success: Optional[Verdict] = None
    decision: Optional[RetryDecision] = None
    ended_at: float = 0.0


class StartedAttempt(NamedTuple):
    """An attempt before its exchange.

    Attributes:
        sent_at: its start, on the pool's clock.
        deadline: the end of the call's time.
        seconds_left: the rest of the call's time.
        refusal: the decision that ends the call instead of sending it, None if it is sent.
    """

    sent_at: float
    deadline: Deadline
    seconds_left: float
    refusal: Optional[RetryDecision] = None


class Attempter:
    """Makes attempts.

    Args:
        endpoints: the endpoints to send to.
        clock: the pool's clock.
        scheduler: knows the earlier successes, on which some rules depend, and is told of failures.
        choices: how many answers servers give to one request.
    """

    def __init__(self, endpoints: Endpoints, clock: Clock, scheduler: Scheduler, choices: ChoiceLimits) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._scheduler = scheduler
        self._failover = Failover(endpoints, scheduler) if endpoints.fails_over else None
        self._exchanges = _Exchanges(endpoints, clock, scheduler, choices)

    def attempt(self, call: Call) -> AttemptResult:
        """Make one attempt, unless the call must not be sent.  A success is not yet known to the scheduler."""
        started = self.begin(call)
        if started.refusal is not None:
            return AttemptResult(decision=started.refusal)
        return self.conclude(call, started, self._exchange(call, started))

    def begin(self, call: Call) -> StartedAttempt:
        """Start the clocks of an attempt and check whether the call may be sent."""
        now = self._wait_for_lease(call)
        deadline = self.deadline(call, now)
        refusal = self._refusal(call, now, deadline)
        if refusal is not None:
            self._scheduler.returned(call, UNSENT, now)
            call.settle_lease(None)
        else:
            call.attempts += 1
            call.first_chunk_seconds = None
            if call.history:
                note_wait(call, now)
            report_send(call, now)
        return StartedAttempt(now, deadline, deadline.at - now, refusal)

    def conclude(self, call: Call, started: StartedAttempt, verdict: Verdict) -> AttemptResult:
        """Decide what follows an exchange that has ended with ``verdict``."""
        ended_at = self._clock.now()
        elapsed = ended_at - started.sent_at
        lease = None if call.lease is None else call.settle_lease(verdict)
        if verdict is CANCELLED:
            self._scheduler.returned(call, CANCELLED, ended_at)
            return AttemptResult()
        if verdict.kind == "success":
            endpoint = self._endpoints.display_name(call)
            call.history += (attempt_of(verdict, None, elapsed, endpoint, call.fallback),)
            return AttemptResult(verdict, None, ended_at)
        if verdict.kind == "pending":
            return self.promise(call, started, verdict, ended_at)
        fallbacks = call.options.fallbacks
        if verdict.about == "tier" and fallbacks is not None and call.fallback < len(fallbacks.entries):
            verdict = verdict._replace(kind="fail")  # it says nothing about the pace of other tiers, and is not awaited
        # A timeout that was cut to the rest of the call's time says nothing about the server.
        was_cut = started.seconds_left < call.options.timeout.attempt
        tells_nothing = was_cut and verdict.kind == "timeout" and verdict.status is None
        snapshot = self._scheduler.returned(call, CANCELLED if tells_nothing else verdict, ended_at)
        if lease is not None and verdict.kind == "throttled":
            lease.share_pause(self._scheduler.paused_for(call, ended_at))
        if snapshot.unanimous:
            error = None if verdict.error is None else verdict.error.copied("every call is refused in these words: ")
            verdict = verdict._replace(kind="fatal", scope="model", error=error)
        return AttemptResult(decision=self._decide(call, verdict, snapshot, ended_at, elapsed))

    def promise(
        self, call: Call, started: StartedAttempt, verdict: Verdict, now: float, *, is_new: bool = True
    ) -> AttemptResult:
        """Have the response that a call is promised asked for later; the attempt goes on until that has ended."""
        if call.background is None:
            call.background = BackgroundState()
        background = call.background
        self._scheduler.promised(call, verdict._replace(kind="success"), now)
        if is_new and verdict.background is not None:
            # Kept first: what is given up in this moment must not be withdrawn if a later run can find it.
            facts = {"id": verdict.background.id, "endpoint": call.upstream_key[0]}
            if call.fallback:
                facts["fallback"] = str(call.fallback)
            is_kept = call.sink.keep_background(call, facts)
            background.start(verdict.background, started.sent_at, is_kept=is_kept)
        hint, others = call.options.retrier.policy.retry_after_max, self._scheduler.parked_calls(call)
        wait = poll_wait(background, verdict, others=others, longest_hint=hint)
        return AttemptResult(decision=RetryDecision(wait=min(wait, max(0.0, self.deadline(call, now).at - now))))

    # -- before the exchange ----------------------------------------------------------------------------

    def _wait_for_lease(self, call: Call) -> float:
        """Wait for another slot where a busy machine has kept the worker from using that of the call in time.

        Returns:
            The time.
        """
        now = self._clock.now()
        while call.lease is not None and call.state == RUNNING and call.lease.is_late(now):
            self._scheduler.keep_lease(call, call.lease.renewed(self._clock), self._clock.now())
            if call.lease is not None:
                self._scheduler.wait_inline(call, call.lease.due_at, self._clock)
            now = self._clock.now()
        return now

    def deadline(self, call: Call, now: float, *, begun: bool = False) -> Deadline:
        """Return the end of the call's time; in a run the time in which the pool keeps it back does not count."""
        if call.first_sent_at is None:
            call.first_sent_at = now
            return call.deadline()
        blocked_seconds = 0.0 if call.options.counts_waits else self._scheduler.blocked_seconds(call, now)
        return call.deadline(blocked_seconds, begun=begun)

    def _refusal(self, call: Call, now: float, deadline: Deadline) -> Optional[RetryDecision]:
        """Return the decision that ends a call that must not be sent now, None if it may be."""
        error = call.sink.refusal(call)
        has_room = call.unsendable is None  # in a configured day, which has none for others
        if error is not None and not (has_room and is_of_own_day(error)):
            return RetryDecision(error=error)
        if isinstance(call.unsendable, DayLimitError):
            return unsent_on_day(call, call.unsendable, call.unsendable.retry_after or 0.0, now, self._clock.wall())
        if call.unsendable is not None:
            ends_all = isinstance(call.unsendable, BudgetExceededError)  # then nothing else may be sent either
            return RetryDecision(error=call.unsendable, scope="run" if ends_all else "call")
        fallbacks = call.options.fallbacks
        error = None if fallbacks is None else fallbacks.reason_to_skip(call.first_request, call.fallback)
        if error is not None and not (has_room and is_of_own_day(error)):
            of_all = fallbacks is not None and fallbacks.refuses_all(call.first_request, call.fallback)
            return RetryDecision(error=error.copied("not sent: "), scope="model" if of_all else "call", skipped=True)
        if now >= deadline.at:
            reason = f"the time for the call ({deadline.limit}) ran out before it could be sent"
            return RetryDecision(error=DeadlineExceededError(reason))
        health = self._scheduler.health(call)
        refused = health.rejection_at(now)
        if isinstance(refused, DayLimitError):
            return unsent_on_day(call, refused, health.rejected_for(now), now, self._clock.wall())
        return None if refused is None else RetryDecision(error=refused.copied("not sent: "), scope="model")

    # -- the exchange ---------------------------------------------------------------------------------------

    def _exchange(self, call: Call, started: StartedAttempt) -> Verdict:
        """Make one exchange, within the rest of the call's time."""
        try:
            timeout = limited(call.options.timeout, started.seconds_left)
            begins_by = call.options.begins_by
            deadline = started.deadline if begins_by is None else self.deadline(call, started.sent_at, begun=True)
            return self._exchanges.make(call, timeout, deadline.at)
        except Cancelled:
            return CANCELLED
        except FileFault as error:  # it says nothing about the endpoint: another one would not help
            return Verdict("fail", error=error.error)
        except ChatPoolError as error:  # the key could not be fetched
            return Verdict("fail", error=error) if self._failover is None else Verdict("fatal", "endpoint", error)
        except Exception as error:
            transport = self._endpoints.of(call).transport
            return classify_exception(error, url=transport.url_of(call.request.path), proxy=transport.proxy)

    # -- after a failure --------------------------------------------------------------------------------------

    def _decide(
        self, call: Call, verdict: Verdict, snapshot: HealthSnapshot, now: float, elapsed: float
    ) -> RetryDecision:
        """Decide what follows a failed attempt, and note the attempt in the call's history."""
        call.add_usage(verdict.usage)  # an unusable answer is billed like any other
        call.unreported_usage = verdict.usage
        if call.partly_delivered:  # the caller has seen a part of the answer: it cannot be taken back
            decision, error = RetryDecision(error=verdict.error, scope=verdict.scope), verdict.error
        else:
            decision, error = self._retry_decision(call, verdict, snapshot, now)
            decision = after_day_refusal(call, decision, now)
        if self._failover is not None:
            decision = self._failover.follow(call, verdict._replace(error=error), decision, now, elapsed)
        elif decision.wait is not None and decision.reject_for is not None and error is not None:
            self._scheduler.refuse(call.upstream_key, now + decision.reject_for, error)
        if call.options.fails_when_down and verdict.kind in FAILURE_KINDS:
            outage = self._scheduler.outage(call, now)
            if outage is not None:
                decision = RetryDecision(error=outage.error(verdict.error))
        attempt = attempt_of(verdict, decision.wait, elapsed, self._endpoints.display_name(call), call.fallback)
        call.history += (attempt,)
        if decision.wait is not None and call.state == RUNNING:
            report_retry(call, attempt, now)
            call.unreported_usage = None
        return decision

    def _retry_decision(
        self, call: Call, verdict: Verdict, snapshot: HealthSnapshot, now: float
    ) -> Tuple[RetryDecision, Optional[ChatPoolError]]:
        """Return the decision of the retry policy, and the error that it is about."""
        if call.retry is None:
            call.retry = call.options.retrier.start(call.first_sent_at or now)
        return self.decide_retry(call, call.retry, call.attempts - call.attempts_before, verdict, snapshot, now)

    def decide_retry(
        self, call: Call, state: RetryState, attempt: int, verdict: Verdict, snapshot: HealthSnapshot, now: float
    ) -> Tuple[RetryDecision, Optional[ChatPoolError]]:
        """Return the decision of the retry policy on attempt number ``attempt``, and the error that it is about."""
        auth = self._endpoints.of(call).transport.auth
        decision: Optional[RetryDecision] = None
        try:
            if self._failover is not None:
                self._failover.prepare(call)
            decision = call.options.retrier.decide(
                state,
                verdict,
                attempt=attempt,
                now=now,
                deadline=self.deadline(call, now),
                snapshot=snapshot,
                refreshable=auth.refreshable,
                suspects=call.suspects,
            )
            if decision.refresh_key:
                auth.refresh()
        except Exception as problem:
            error = _callback_error(problem)
            if decision is not None and self._failover is not None:  # no key here: the other endpoints have theirs
                return RetryDecision(wait=0.0), error
            return RetryDecision(error=error), error
        return decision, verdict.error


class _Exchanges:
    """One exchange of a call and its verdict: on a whole answer, or on a stream that is read.

    Args:
        endpoints: the endpoints to send to.
        clock: the pool's clock.
        scheduler: knows the earlier successes, on which the classification of an answer depends.
        choices: how many answers servers give to one request.
    """

    def __init__(self, endpoints: Endpoints, clock: Clock, scheduler: Scheduler, choices: ChoiceLimits) -> None:
        self._endpoints = endpoints
        self._clock = clock
        self._scheduler = scheduler
        self._choices = choices
        self._without_usage: Set[UpstreamKey] = set()  # whose server refuses stream_options

    def make(self, call: Call, timeout: Timeout, ends_at: float) -> Verdict:
        """Send ``call`` and classify its answer.

        Args:
            call: the call to send.
            timeout: the limits for the exchange.
            ends_at: the end of the call's time, on the pool's clock.

        Raises:
            Cancelled: the call was given up.
            Exception: no whole answer came.
        """
        reading, client = call.options.reading, self._endpoints.of(call)
        if reading is not None:
            reading = _effective_reading(call.request, reading)
        if reading is None and isinstance(call.request.response, str):
            return self._classify(call, self._send(call, timeout, client, client.transport.exchange))
        if reading is None:
            return self._save(call, timeout, client)
        answer = self._open(call, timeout, client)
        if isinstance(answer, HTTPResponse):
            verdict = self._classify(call, answer)
            if verdict.kind == "pending":
                return Verdict("fail", error=ConfigurationError(_NO_STREAM))
            return reading(call, WholeAnswer(verdict)) if verdict.kind == "success" else verdict
        return self._read(call, answer, client, reading, ends_at)

    def _save(self, call: Call, timeout: Timeout, client: EndpointClient) -> Verdict:
        """Send ``call`` and have a good answer written to its file."""
        with AnswerFile(call.request.response) as file:
            send = partial(client.transport.exchange, answer_file=file)
            verdict = self._classify(call, self._send(call, timeout, client, send))
            if verdict.kind == "success":
                file.put_in_place()
        return verdict

    def _send(self, call: Call, timeout: Timeout, client: EndpointClient, send: Any) -> Any:
        if call.options.samples == 1:
            return self._send_once(call, timeout, client, send)
        return self._choices.exchange(
            call,
            lambda: self._send_once(call, timeout, client, send),
            lambda request: self._encoded(request, call),
            lambda: self._count_another(call),
        )

    def _count_another(self, call: Call) -> None:
        """Count one more request of an attempt for the limits."""
        self._scheduler.sent_another(call, self._clock.now())
        if call.lease is not None:
            call.lease.count_another()

    def _send_once(self, call: Call, timeout: Timeout, client: EndpointClient, send: Any) -> Any:
        options = call.options
        return send(
            call.request,
            client.payload(call),
            timeout=timeout,
            cancel=call.cancel_token or CancelToken(),
            headers=options.headers,
            query=options.query,
        )

    def _open(self, call: Call, timeout: Timeout, client: EndpointClient) -> Union[HTTPResponse, OpenStream]:
        """Open a stream; where the server refuses the request for the usage, once more without that."""
        if call.upstream_key in self._without_usage:
            call.payload = self._encoded(call.request, call)
        answer: Union[HTTPResponse, OpenStream] = self._send(call, timeout, client, client.transport.open)
        if not isinstance(answer, HTTPResponse) or not refuses_usage(answer, call.request):
            return answer
        self._without_usage.add(call.upstream_key)
        call.payload = self._encoded(call.request, call)
        answer = self._send(call, timeout, client, client.transport.open)
        if is_refusal(answer.status):
            self._without_usage.discard(call.upstream_key)
        return answer

    def _encoded(self, request: ChatRequest, call: Call) -> Union[bytes, LazyBody]:
        """Return the payload of a request for the upstream of a call, which may refuse to be asked for the usage."""
        is_plain = call.options.reading is None or call.upstream_key not in self._without_usage
        return encode_payload(request if is_plain else without_usage(request), call.options.reading)

    def _read(
        self, call: Call, stream: OpenStream, client: EndpointClient, reading: Reading, ends_at: float
    ) -> Verdict:
        transport = client.transport
        head = HTTPResponse(stream.status, stream.headers, b"", transport.url_of(call.request.path), transport.proxy)
        chunks = StreamedChunks(
            stream,
            call,
            ends_at - self._clock.now(),
            lambda reader: self._classify_stream(call, reader, head),
            lambda error: classify_exception(error, url=head.url, proxy=head.proxy),
            max_event_bytes=transport.settings.max_response_bytes,
            now=self._clock.now,
        )
        try:
            return reading(call, chunks)
        finally:
            chunks.close()

    def _classify(self, call: Call, reply: HTTPResponse) -> Verdict:
        endpoint, model = self._scheduler.proven(call)
        wall = self._clock.wall()
        return classify_response(reply, call.request, endpoint_proven=endpoint, model_proven=model, wall=wall)

    def _classify_stream(self, call: Call, reader: StreamReader, head: HTTPResponse) -> Verdict:
        endpoint, model = self._scheduler.proven(call)
        wall = self._clock.wall()
        return classify_stream(reader, head, call.request, endpoint_proven=endpoint, model_proven=model, wall=wall)


def encode_payload(request: ChatRequest, reading: Optional[Reading]) -> Union[bytes, LazyBody]:
    """Return the encoded body of ``request``; the body of a streamed request if the answer is read as a stream.

    Raises:
        TypeError, ConfigurationError: as :func:`payload_of`; or its path does not stream.
    """
    if reading is not None and _effective_reading(request, reading) is not None:
        request = streamed(request)
    return b"" if sends_no_body(request) and not request.files else payload_of(request)


def encode_changed(call: Call, request: ChatRequest) -> Union[bytes, LazyBody]:
    """Return the encoded body of a request that differs from that of ``call`` in body fields only; raises as above."""
    if request.files:  # the open ones among them have been read
        return with_files_of(call.payload, request)
    return encode_payload(request, call.options.reading)


def _effective_reading(request: ChatRequest, reading: Reading) -> Optional[Reading]:
    """Return ``reading``, but None for a request that cannot be streamed and whose answer is only collected."""
    if reading is not collect_chunks:
        return reading
    is_whole = request.response != "json" or not is_streamed(request) or is_background(request)
    return None if is_whole else reading


def review_answer(call: Call, verdict: Verdict) -> Review:
    """Have the answer of a call reviewed; note its usage and the result of the review in the call."""
    call.add_usage(verdict.usage)
    reviewer = call.options.review
    assert reviewer is not None
    review = reviewer(call.request, verdict.value, call.reasks)
    if review.reason != "ok":
        change_last_attempt(call, reason=review.reason)
    return review


def ask_again(call: Call, request: ChatRequest, verdict: Verdict, now: float) -> None:
    """Make ``request`` the one that the call sends next.

    The retries start afresh for it; the call's time goes on.

    Raises:
        TypeError, ConfigurationError: its body cannot be sent as JSON, or an attached file cannot be read.
    """
    call.payload = encode_payload(request, call.options.reading)
    call.request, call.size, call.retry = request, None, None
    call.reasks += 1
    call.attempts_before = call.attempts
    change_last_attempt(call, wait=0.0)
    report_reask(call, now, verdict)


def note_wait(call: Call, now: float) -> None:
    """Note in the history how long the call has waited for this attempt: longer than decided where no worker was free.

    With this the start of each attempt is known from the history.
    """
    *before, last = call.history
    spent = sum(attempt.elapsed + (attempt.wait or 0.0) for attempt in before) + last.elapsed
    change_last_attempt(call, wait=max(now - (call.first_sent_at or now) - spent, 0.0))


def change_last_attempt(call: Call, **changes: Any) -> None:
    """Change what the history says of the last attempt."""
    call.history = (*call.history[:-1], call.history[-1]._replace(**changes))


def limited(timeout: Timeout, seconds_left: float) -> Timeout:
    """Return the limits, each at most the time that is left."""
    if seconds_left >= timeout.attempt:
        return timeout
    limit = max(seconds_left, _MIN_TIMEOUT_SECONDS)
    read = timeout.read if timeout.read is None else min(timeout.read, limit)
    return Timeout(connect=min(timeout.connect, limit), read=read, attempt=limit, total=timeout.total)


def _callback_error(error: Exception) -> ChatPoolError:
    if isinstance(error, ChatPoolError):
        return error
    wrapped = ChatPoolError(f"a callback of the retry policy raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
