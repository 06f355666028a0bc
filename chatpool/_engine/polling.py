"""Polls: exchanges that ask for the response of a call which the server makes in the background."""

from __future__ import annotations

from typing import Optional

from .._policy.retry import RetryDecision
from .._transport import Cancelled, CancelToken
from .._values import BackgroundResponse, Verdict
from .._wire import classify_exception, classify_poll
from ..clock import Clock
from ..errors import ChatPoolError
from .attempt import CANCELLED, Attempter, AttemptResult, StartedAttempt, limited, note_wait
from .background_state import BackgroundState, unfinished_in_time
from .call import Call, attempt_of, report_retry, report_send
from .endpoints import Endpoints
from .scheduler import Scheduler

__all__ = ["Poller"]


class Poller:
    """Asks for responses in the background, at the endpoint that makes them.

    An attempt of a call lasts from its request to the end of the response.  A poll that fails ends it, and the next
    attempt begins with a poll again: the request is not sent anew while the server has the response.

    Args:
        attempter: concludes attempts whose response has ended, as any other.
        endpoints: the endpoints of the pool.
        clock: the pool's clock.
        scheduler: is told of every exchange.
    """

    def __init__(self, attempter: Attempter, endpoints: Endpoints, clock: Clock, scheduler: Scheduler) -> None:
        self._attempter = attempter
        self._endpoints = endpoints
        self._clock = clock
        self._scheduler = scheduler

    def poll(self, call: Call) -> AttemptResult:
        """Ask for the response of a call, unless its time is over or its run has ended."""
        background = call.background
        assert background is not None
        assert background.response is not None
        now = self._clock.now()
        deadline = self._attempter.deadline(call, now)
        error = call.sink.refusal(call)
        if error is None and now >= deadline.at:
            error = unfinished_in_time(background, deadline.limit)
        if error is not None:
            self._scheduler.returned(call, CANCELLED, now)
            return AttemptResult(decision=RetryDecision(error=error))
        began_at = background.began_at = self._begin(call, background, now)
        started = StartedAttempt(began_at, deadline, deadline.at - now)
        return self._conclude(call, background, started, self._exchange(call, background.response, started))

    def _begin(self, call: Call, background: BackgroundState, now: float) -> float:
        """Return when the attempt began that the poll belongs to: a new one after a poll that failed."""
        if background.began_at is not None:
            return background.began_at
        call.attempts += 1
        call.first_chunk_seconds = None
        if call.history:
            note_wait(call, now)
        report_send(call, now)
        return now

    def _exchange(self, call: Call, response: BackgroundResponse, started: StartedAttempt) -> Verdict:
        transport, options = self._endpoints.of(call).transport, call.options
        try:
            reply = transport.exchange(
                response.poll,
                b"",
                timeout=limited(options.timeout, started.seconds_left),
                cancel=call.cancel_token or CancelToken(),
                headers=options.headers,
                query=options.query,
            )
        except Cancelled:
            return CANCELLED
        except ChatPoolError as error:  # the key could not be fetched
            return Verdict("fail", error=error, background=response)
        except Exception as error:
            verdict = classify_exception(error, url=transport.url_of(response.poll.path), proxy=transport.proxy)
            return verdict._replace(background=response)
        endpoint, model = self._scheduler.proven(call)
        wall = self._clock.wall()
        return classify_poll(reply, response, call.request, endpoint_proven=endpoint, model_proven=model, wall=wall)

    def _conclude(
        self, call: Call, background: BackgroundState, started: StartedAttempt, verdict: Verdict
    ) -> AttemptResult:
        if verdict.kind == "pending":
            background.answered()
            return self._attempter.promise(call, started, verdict, self._clock.now(), is_new=False)
        if verdict.background is not None:
            return AttemptResult(decision=self._decide(call, background, started, verdict))
        if verdict is not CANCELLED:
            background.take()
            if background.was_found and (verdict.about == "gone" or verdict.kind not in ("success", "fail")):
                return self._send_anew(call, background, started, verdict)
        return self._attempter.conclude(call, started, verdict)

    def _send_anew(
        self, call: Call, background: BackgroundState, started: StartedAttempt, verdict: Verdict
    ) -> AttemptResult:
        """Send the request of a call after all: what an earlier run had made is gone, or has come to nothing."""
        self._scheduler.returned(call, CANCELLED, self._clock.now())
        self._note_failure(call, background, started, verdict, 0.0)
        return AttemptResult(decision=RetryDecision(wait=0.0))

    def _decide(
        self, call: Call, background: BackgroundState, started: StartedAttempt, verdict: Verdict
    ) -> RetryDecision:
        """Decide what follows a poll that has failed: another one, or the end of the call."""
        now = self._clock.now()
        # A timeout that was cut to the rest of the call's time says nothing about the server.
        tells_nothing = now >= started.deadline.at and verdict.kind == "timeout" and verdict.status is None
        snapshot = self._scheduler.returned(call, CANCELLED if tells_nothing else verdict, now)
        # No other endpoint has the response.
        snapshot = snapshot._replace(has_peer=False, has_healthy_peer=False, unanimous=False)
        background.failures += 1
        if background.retry is None:
            background.retry = call.options.retrier.start(now)
        decision, error = self._attempter.decide_retry(
            call, background.retry, background.failures, verdict, snapshot, now
        )
        if self._endpoints.fails_over:  # the others may go on
            decision = decision._replace(scope="call")
        self._note_failure(call, background, started, verdict._replace(error=error), decision.wait)
        return decision

    def _note_failure(
        self,
        call: Call,
        background: BackgroundState,
        started: StartedAttempt,
        verdict: Verdict,
        wait: Optional[float],
    ) -> None:
        """Note the failed poll as the end of an attempt; the number of the call's own retries stays what it was."""
        now = self._clock.now()
        attempt = attempt_of(verdict, wait, now - started.sent_at, self._endpoints.display_name(call), call.fallback)
        call.history += (attempt,)
        call.attempts_before += 1
        background.began_at = None
        if wait is not None:
            report_retry(call, attempt, now)
