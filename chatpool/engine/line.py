"""The calls to one (endpoint, model) that are ready to be sent, and whether they may be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, Optional

from ..config import Limits
from ..errors import ChatPoolError, ConfigurationError
from ..measures import RequestSize, StatedLimit
from ..policy.breaker import EndpointHealth
from ..policy.health import LineHealth, LineView
from ..policy.pacing import Pacer, Sent
from ..policy.recheck import Recheck
from ..policy.repeats import is_of_the_size
from ..policy.spending import Reservation, Spending
from ..policy.standing import Standing
from ..policy.tokens import TokenEstimator
from ..types import LineStats, Verdict
from ..wire.sizes import request_size
from ..wire.stated import stated_limits
from .call import Call
from .grants import Grants, Question
from .queues import CallQueue
from .visits import LineKey

__all__ = ["Line", "Paced", "StatedLimits", "read_limits"]


class Paced(NamedTuple):
    """What the line's policies noted about an attempt when it was sent; they get it back when it returns."""

    sent: Sent
    reservation: Optional[Reservation] = None


class StatedLimits(NamedTuple):
    """What the headers of an answer say about limits."""

    requests: Optional[StatedLimit]
    tokens: Optional[StatedLimit]


def read_limits(verdict: Verdict) -> Optional[StatedLimits]:
    """The limits that an answer states, None without any; to be called without a lock, for it takes a while."""
    if not verdict.limits:
        return None
    return StatedLimits(*stated_limits(verdict.limits))


class Line:
    """The way to one (endpoint, model): one that has to wait never holds up another.

    It draws from the queue of its model, which it has for itself unless the pool has several endpoints.

    Not thread-safe: the scheduler holds its lock.

    Args:
        key: the endpoint and the model.
        limits: the configured limits, None without any.
        spending: what the pool has spent of its budget, None without one.
        grants: its slots of a limit that is shared with other processes, None without one.
        queue: the calls to its model.
        endpoint: what is known of its endpoint.
        weight: how much it is preferred to other lines of the queue, as a factor; None if there are none.

    Attributes:
        standing: how it compares with them.
        health: what the latest answers say.
        pacer: when the next call may be sent.
        recheck: holds it while a refusal of the key or the model is in doubt.
        parked: how many of its calls wait for their next attempt.
        read_again_at: from when on the limits in the headers of a success are looked at.
    """

    __slots__ = (
        "_estimator",
        "_grants",
        "_spending",
        "health",
        "key",
        "pacer",
        "parked",
        "queue",
        "read_again_at",
        "recheck",
        "standing",
    )

    def __init__(
        self,
        key: LineKey,
        limits: Optional[Limits] = None,
        spending: Optional[Spending] = None,
        grants: Optional[Grants] = None,
        *,
        queue: CallQueue,
        endpoint: EndpointHealth,
        weight: Optional[float] = None,
    ) -> None:
        self.key = key
        self.queue = queue
        self.health = LineHealth()
        self.standing = Standing(endpoint, self.health, weight or 1.0, several=weight is not None)
        self.pacer = Pacer(limits)
        self.recheck = Recheck()
        self.parked = 0
        self.read_again_at = 0.0
        self._spending = spending
        self._grants = grants
        self._estimator = TokenEstimator(None if limits is None else limits.tokens_per_minute)

    # -- calls ------------------------------------------------------------------------------------------

    def take_over(self, call: Call, before: Line, now: float) -> None:
        """A call comes from another line, with the time in which that one has held it."""
        shift = self.held(now) - before.held(now)
        call.held_before += shift
        call.held_when_due += shift
        call.line = self.key

    def held_for(self, now: float) -> float:
        """About how long it will be until any call may be sent."""
        return max(self.standing.left_alone(now), self.health.gate.wait(now), self._pace(now))

    def due(self, call: Call, now: float) -> None:
        """The wait of a call that was sent here is over."""
        call.due_at, call.held_when_due = now, self.held(now)

    def too_large(self, call: Call) -> Optional[str]:
        """Why a call can never be within the limits, None if it can."""
        return self.pacer.too_large(self._tokens(call)) if self.pacer.counts_tokens else None

    def on_their_way(self) -> int:
        """How many calls are in flight or parked."""
        return self.health.gate.in_flight + self.parked

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float) -> float:
        """Seconds until its first call may be sent: 0 for now, ``inf`` for not before something happens."""
        wait = self._own_wait(now)
        if wait > 0 or self._grants is None:
            return wait
        call = self.queue.first(self, now)
        return wait if call is None or not self._may_be_sent(call, now) else self._grants.wait(now)

    def _own_wait(self, now: float) -> float:
        """The same without regard to other processes."""
        wait = max(self.health.gate.wait(now), self.recheck.wait(now))
        if wait > 0:
            return wait
        if self.health.refusal_at(now) is not None:
            return 0.0  # it is to be told so at once
        if self._spending is None and not self.pacer.counts_tokens:
            return self._pace(now)
        call = self.queue.first(self, now)
        return 0.0 if call is None else self._wait_by_size(now, call)

    def _wait_by_size(self, now: float, call: Call) -> float:
        tokens = self._tokens(call)
        if self._reason_against(call, tokens) is not None:
            return 0.0  # it is to be told so at once
        if self._spending is not None and self._spending.must_wait(self.key[1], self._estimator.expected(_size(call))):
            return math.inf
        return self._pace(now, tokens)

    def _pace(self, now: float, tokens: float = 0.0) -> float:
        return self.pacer.wait(now, tokens, probe=self.health.gate.closed)

    def question(self, now: float) -> Optional[Question]:
        """What has to be asked before its first call is sent, None if nothing."""
        if self._grants is None or not self._grants.lacking(now):
            return None
        call = self.queue.first(self, now)
        if call is None or not self._may_be_sent(call, now):
            return None
        return self._grants.question(self._tokens(call))

    def question_for(self, call: Call) -> Optional[Question]:
        """What has to be asked before ``call``, which is in no queue, is sent; None if nothing."""
        if self._grants is None or call.grant is not None or call.unsendable is not None:
            return None
        return Question(self._grants, self._tokens(call))

    @property
    def shared(self) -> bool:
        """Whether its limits are shared with other processes."""
        return self._grants is not None

    def close_grants(self) -> None:
        """Let go of files and connections; not under the lock."""
        if self._grants is not None:
            self._grants.limit.close()

    def _may_be_sent(self, call: Call, now: float) -> bool:
        if self.health.refusal_at(now) is not None:
            return False
        if self._spending is None and not self.pacer.counts_tokens:
            return True
        return self._reason_against(call, self._tokens(call)) is None

    def _tokens(self, call: Call) -> float:
        return self._estimator.total(_size(call)) if self.pacer.counts_tokens else 0.0

    def _reason_against(self, call: Call, tokens: float) -> Optional[ChatPoolError]:
        """Why a call of so many tokens can never be sent, None if it can."""
        too_large = self.pacer.too_large(tokens)
        if too_large is not None:
            return ConfigurationError(too_large)
        if self._spending is None:
            return None
        expected = self._estimator.expected(_size(call))
        if self._spending.must_wait(self.key[1], expected):
            return None
        return self._spending.refusal(self.key[1], expected)

    def sent(self, call: Call, now: float) -> None:
        """A call is about to be sent; ``call.unsendable`` says if it must not be."""
        self._note_time(call, now)
        self.health.gate.sent()
        self.recheck.sent()
        if self.standing.several:
            self.standing.sent(now)
        self._note_sent(call, now)
        if self._grants is not None and call.unsendable is None:
            call.grant = self._grants.take(now, self._tokens(call))

    def _note_sent(self, call: Call, now: float) -> None:
        if self._spending is None and not self.pacer.counts_tokens:
            call.paced = Paced(self.pacer.sent(now))
            return
        tokens = self._tokens(call)
        call.unsendable = self._reason_against(call, tokens)
        if call.unsendable is None:
            reservation = None
            if self._spending is not None:
                reservation = self._spending.reservation(self.key[1], self._estimator.expected(_size(call)))
                self._spending.sent(reservation)
            call.paced = Paced(self.pacer.sent(now, tokens), reservation)

    def _note_time(self, call: Call, now: float) -> None:
        """The time in which the pool holds a call is not the call's: the server down, or a pace that is kept."""
        call.sent_at = now
        if call.first_sent is None:
            call.held_before = self.held(now)
        elif call.due_at is not None:
            paced = now - call.due_at - (self.held(now) - call.held_when_due)
            call.held_before -= max(0.0, paced)
        call.due_at = None

    def may_hold_up(self) -> bool:
        """Whether a call may have to wait for long before it is sent."""
        if self._grants is not None or self._spending is not None:
            return True
        return self.health.gate.closed or self.pacer.limited or self.recheck.pause is not None

    # -- answers ----------------------------------------------------------------------------------------

    def returned(self, call: Call, verdict: Verdict, stated: Optional[StatedLimits], now: float) -> None:
        """The attempt of ``call`` that was under way has ended with ``verdict``."""
        was_closed, sent_at = self.health.gate.closed, call.sent_at or now
        # Many packs with one bad text each are neither an outage nor overload, nor are some rows on which the server
        # always stumbles; nor is a server that is starting.
        of_the_call = is_of_the_size(verdict) and (call.suspects > 1 or (self._stumbled_alone(call) and not was_closed))
        told = verdict._replace(kind="fail") if of_the_call else verdict
        if call.paced is not None:
            self._settle(call, call.paced, verdict, "fail" if verdict.about == "start" else told.kind, now)
        # One that is starting is no matter of the pace, whatever the failures before it were.
        down = None if verdict.about == "start" else self.pacer.down
        self.health.returned(told, sent_at, now, down)
        self._recheck(call, verdict, sent_at, now)
        if self.standing.several:
            self.standing.returned(verdict.kind, sent_at, now)
        call.sent_at = None
        if call.paced is not None:
            if stated is not None:
                self.pacer.stated(call.paced.sent, now, stated.requests, stated.tokens)
                self._estimator.limit = self.pacer.tokens_at_most
            call.paced = None
        if was_closed and not self.health.gate.closed:
            self.pacer.restart()

    def _stumbled_alone(self, call: Call) -> bool:
        """Whether the call failed before, and one that was sent later succeeded."""
        failing_since = None if call.retry is None else call.retry.failing_since
        return failing_since is not None and failing_since < self.recheck.good_sent_at

    def _recheck(self, call: Call, verdict: Verdict, sent_at: float, now: float) -> None:
        endpoint = self.standing.endpoint
        if verdict.kind == "success":
            endpoint.worked_at = now
            self.recheck.succeeded(sent_at, now)
        elif verdict.about == "access" and not self.standing.several and call.options.retrier.policy.max_retries:
            of_the_key = verdict.scope in ("run", "endpoint")
            self.recheck.refused(sent_at, now, endpoint.worked_at if of_the_key else self.recheck.worked_at)
        else:
            self.recheck.ended(sent_at)

    def _settle(self, call: Call, paced: Paced, verdict: Verdict, kind: str, now: float) -> None:
        usage = verdict.usage
        if kind == "success":
            self.pacer.accepted(paced.sent, now, None if usage is None else usage.total_tokens or None)
            if usage is not None and call.size is not None:
                self._estimator.learn(call.size, usage)
        elif kind == "throttled":
            self.pacer.refused(paced.sent, now, verdict.wait_hint)
        elif kind == "unavailable":
            self.pacer.failed(paced.sent, now, verdict.wait_hint)
        elif kind == "timeout":
            self.pacer.given_up(paced.sent, now)
        else:
            self.pacer.ended()
        if paced.reservation is not None and self._spending is not None:
            # An answer that did not come in time may have been written, and billed, all the same.
            answered, wrote = verdict.kind in ("success", "timeout"), bool(getattr(verdict.value, "text", ""))
            self._spending.returned(paced.reservation, usage, answered=answered, wrote=wrote)

    def view(self, now: float, on_their_way: int) -> LineView:
        """This line as a retry decision sees it, with so many calls in flight or parked."""
        view = self.health.view(now, on_their_way)
        return view._replace(chance=self.pacer.chance, overloaded=self.pacer.explained)

    # -- for a person -----------------------------------------------------------------------------------

    def held(self, now: float) -> float:
        """Seconds it has been held because the server was down."""
        return self.health.gate.held(now)

    def stats(self, now: float) -> LineStats:
        """This state for a person."""
        stats, pace = self.health.stats(now), self.pacer.pace(now)
        stats = replace(stats, rate=pace.rate, concurrency_limit=pace.concurrency_limit)
        reason = self.standing.tripped
        if reason is not None:
            alone = self.standing.left_alone(now)
            return replace(stats, paused_until=None if math.isinf(alone) else alone, why=f"left alone: {reason}")
        if self.recheck.pause is not None:
            return replace(stats, why="it has worked and is refused now: single calls look again")
        return stats if stats.why else replace(stats, paused_until=pace.paused_for, why=pace.why)


def _size(call: Call) -> RequestSize:
    if call.size is None:
        call.size = request_size(call.request)
    return call.size
