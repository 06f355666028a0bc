"""One upstream, an (endpoint, model) with its own health and limits, and the queue of calls that it draws from."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import replace
from typing import Deque, Dict, List, NamedTuple, Optional, Tuple

from .._policy.budget import BudgetReservation, BudgetTracker, TokenEstimate, TokenEstimator
from .._policy.circuit_breaker import FAILURE_KINDS, EndpointHealth
from .._policy.health import HealthSnapshot, UpstreamHealth
from .._policy.load_balancing import PeakLatencyScore
from .._policy.pacing import PacedSend, Pacer, asked_to_wait, limit_hold
from .._policy.retry import KeyRecheck, is_size_related
from .._values import Hold, RequestSize, StatedLimit, Verdict
from .._wire.rate_limit_headers import stated_limits
from .._wire.request_size import request_size
from ..config import Limits
from ..errors import APIConnectionError, ChatPoolError, ConfigurationError, DayLimitError
from ..types import LineStats
from .call import QUEUED, Call, FailoverState, UpstreamKey, failure_reason
from .day_limits import day_error, day_hold
from .leases import Lease, LeaseHolder, LeaseRequest

__all__ = ["UNSENT", "CallQueue", "HeaderReport", "Outage", "Upstream", "reported_limits"]

UNSENT = Verdict("fail")
"""Verdict of an attempt that was not made at all."""

_NO_FAILURES = FailoverState()
_UNKNOWN_LATENCY_SECONDS = 1.0


class Upstream:
    """The way to one (endpoint, model): one that has to wait never holds up another.

    It draws from the queue of its model, which no other upstream uses unless the pool has several endpoints.

    Not thread-safe: the scheduler holds its lock.

    Args:
        key: the endpoint and the model.
        limits: the configured limits, None without any.
        budget_tracker: tracks the pool's budget, None without one.
        leases: its slots of a limit that is shared with other processes, None without one.
        queue: the calls to its model.
        endpoint: the health of its endpoint.
        weight: preference over the other upstreams of the queue, as a factor; None if there are none.

    Attributes:
        score: its rank among them.
        health: the state that the latest answers tell of.
        last_failure: the latest failure of a server that is down, in a few words; "" before the first.
        pacer: decides when the next call may be sent.
        recheck: blocks it while a refusal of the key or the model is in doubt.
        parked: the number of its calls that wait for their next attempt.
        read_limits_at: the time from which the limits in the headers of a success are read again.
        forgotten: whether another one is made for the next call to its model, as no call used it for long.
    """

    __slots__ = (
        "_budget_tracker",
        "_estimator",
        "_leases",
        "_limits",
        "forgotten",
        "health",
        "key",
        "last_failure",
        "pacer",
        "parked",
        "queue",
        "read_limits_at",
        "recheck",
        "score",
    )

    def __init__(
        self,
        key: UpstreamKey,
        limits: Optional[Limits] = None,
        budget_tracker: Optional[BudgetTracker] = None,
        leases: Optional[LeaseHolder] = None,
        *,
        queue: CallQueue,
        endpoint: EndpointHealth,
        weight: Optional[float] = None,
    ) -> None:
        self.key = key
        self.queue = queue
        self.health = UpstreamHealth()
        self.score = PeakLatencyScore(endpoint, self.health, weight or 1.0, several=weight is not None)
        self.pacer = Pacer(limits)
        self.recheck = KeyRecheck()
        self.parked = 0
        self.last_failure = ""
        self.read_limits_at = 0.0
        self.forgotten = False
        self._budget_tracker = budget_tracker
        self._leases = leases
        self._limits = limits
        self._estimator = TokenEstimator(self.pacer.max_tokens)

    # -- may its next call be sent? -----------------------------------------------------------------------

    def wait(self, now: float) -> float:
        """Return the seconds until its first call may be sent: 0 for now, ``inf`` for not before something happens."""
        wait = self._own_wait(now)
        if wait > 0 or self._leases is None:
            return wait
        call = self.queue.first(self, now)
        return wait if call is None or not self._may_be_sent(call, now) else self._leases.wait(now)

    def _own_wait(self, now: float) -> float:
        """Return the same without regard to other processes."""
        wait, recheck_wait = self.health.circuit.wait(now), self.recheck.wait(now)
        if wait > 0 or recheck_wait > 0:
            return max(wait, recheck_wait)
        if self.health.rejection_at(now) is not None:
            return 0.0  # the call fails at once, with this error
        if self._budget_tracker is None and not self.pacer.counts_tokens:
            return self._pace(now)
        call = self.queue.first(self, now)
        return 0.0 if call is None else self._wait_by_size(now, call)

    def _wait_by_size(self, now: float, call: Call) -> float:
        tokens = self._tokens(call)
        if self._send_refusal(call, tokens, now) is not None:
            return 0.0  # the call fails at once, with this error
        tracker = self._budget_tracker
        if tracker is not None and tracker.would_exceed(*self._need(call)):
            return math.inf
        return self._pace(now, tokens)

    def _pace(self, now: float, tokens: float = 0.0) -> float:
        return self.pacer.wait(now, tokens, probe=self.health.circuit.is_open)

    def blocked_for(self, now: float) -> float:
        """Return about how many seconds it takes until any call may be sent."""
        return max(self.score.ejected_for(now), self.health.circuit.wait(now), self._pace(now))

    def may_block(self) -> bool:
        """Return whether a call may have to wait for long before it is sent."""
        if self._leases is not None or self._budget_tracker is not None:
            return True
        return self.health.circuit.is_open or self.pacer.limited or self.recheck.pause is not None

    def too_large(self, call: Call) -> Optional[str]:
        """Return the reason for which a call can never be within the limits, None if it can."""
        return self.pacer.too_large(self._tokens(call)) if self.pacer.counts_tokens else None

    def outstanding(self) -> int:
        """Return the number of its calls that are in flight or parked."""
        return self.health.circuit.in_flight + self.parked

    def _may_be_sent(self, call: Call, now: float) -> bool:
        if self.health.rejection_at(now) is not None:
            return False
        if self._budget_tracker is None and not self.pacer.counts_tokens:
            return True
        return self._send_refusal(call, self._tokens(call), now) is None

    def _tokens(self, call: Call) -> float:
        return self._estimator.total(_size(call)) if self.pacer.counts_tokens else 0.0

    def _send_refusal(self, call: Call, tokens: float, now: float) -> Optional[ChatPoolError]:
        """Return the error of a call of ``tokens`` that can never be sent, or not today; None if it can."""
        too_large = self.pacer.too_large(tokens)
        if too_large is not None:
            return ConfigurationError(too_large)
        day_wait = self._day_refusal(tokens, now)
        if day_wait > 0:
            return self._day_error(day_wait)
        if self._budget_tracker is None:
            return None
        need = self._need(call)
        return None if self._budget_tracker.would_exceed(*need) else self._budget_tracker.rejection(*need)

    def _need(self, call: Call) -> Tuple[Optional[str], TokenEstimate, Optional[str]]:
        """Return the arguments about ``call`` for the tracker of the budget."""
        return self.key[1], self._estimator.expected(_size(call)), call.request.service_tier

    def _day_refusal(self, tokens: float, now: float) -> float:
        """Return the seconds for which the configured day has no room for a call of ``tokens``."""
        return self.pacer.day_wait(now, tokens) if self._leases is None else self._leases.day_wait(now)

    def _day_error(self, wait: float) -> DayLimitError:
        return day_error(wait, self._limits, is_counted=self._leases is None or self._leases.limit.is_shared)

    def day_is_full(self, call: Call, now: float) -> bool:
        """Return whether the configured day has no room for a call."""
        return self.pacer.counts_tokens and self._day_refusal(self._tokens(call), now) > 0

    # -- leases -------------------------------------------------------------------------------------------

    def lease_request(self, now: float) -> Optional[LeaseRequest]:
        """Return the request for the lease that its first call needs, None if it needs none."""
        if self._leases is None or not self._leases.needs_lease(now):
            return None
        call = self.queue.first(self, now)
        if call is None or not self._may_be_sent(call, now):
            return None
        return self._leases.request(self._tokens(call))

    def lease_request_for(self, call: Call) -> Optional[LeaseRequest]:
        """Return the request for the lease of ``call``, which is in no queue; None if it needs none."""
        if self._leases is None or call.lease is not None or call.unsendable is not None or call.polls:
            return None
        return LeaseRequest(self._leases, self._tokens(call))

    def keep_lease(self, call: Call, lease: Lease, now: float) -> None:
        """Give a running call a lease; none, and the reason not to send it, where the day has no room."""
        if lease.slot.granted:
            call.lease = lease
            return
        call.lease, call.unsendable = None, self._day_error(lease.slot.wait)
        if self._leases is not None:
            self._leases.refused(lease.slot.wait, now)

    @property
    def is_shared(self) -> bool:
        """True if its limits are shared with other processes."""
        return self._leases is not None

    def close_leases(self) -> None:
        """Close files and connections; not under the lock."""
        if self._leases is not None:
            self._leases.close()

    # -- an attempt starts --------------------------------------------------------------------------------

    def sent(self, call: Call, now: float) -> None:
        """Update the state for a call that is about to be sent; ``call.unsendable`` says if it must not be."""
        self._begin_exchange(call, now)
        self._note_send(call, now)
        if self._leases is not None and call.unsendable is None:
            call.lease = self._leases.take(now, self._tokens(call))

    def _begin_exchange(self, call: Call, now: float) -> None:
        self._start_clocks(call, now)
        self.health.circuit.sent()
        self.recheck.sent()
        if self.score.several:
            self.score.sent(now)

    def _start_clocks(self, call: Call, now: float) -> None:
        """Start the clocks of an attempt.

        The time in which the pool keeps a call back is not the call's: while the server is down, or for its pace.
        """
        call.sent_at = now
        if call.first_sent_at is None:
            call.blocked_seconds_at_send = self.blocked_seconds(now)
        elif call.due_at is not None:
            paced_seconds = now - call.due_at - (self.blocked_seconds(now) - call.blocked_seconds_at_due)
            call.blocked_seconds_at_send -= max(0.0, paced_seconds)
        call.due_at = None

    def _note_send(self, call: Call, now: float) -> None:
        if self._budget_tracker is None and not self.pacer.counts_tokens:
            call.paced_send = self.pacer.sent(now)
            return
        tokens = self._tokens(call)
        call.unsendable = self._send_refusal(call, tokens, now)
        if call.unsendable is None:
            call.paced_send, call.reservation = self.pacer.sent(now, tokens), self._reserve(call)

    def _reserve(self, call: Call) -> Optional[BudgetReservation]:
        """Reserve the budget that a call is expected to take; None without a budget."""
        if self._budget_tracker is None:
            return None
        reservation = self._budget_tracker.reservation(*self._need(call))
        self._budget_tracker.sent(reservation)
        return reservation

    def poll_wait(self, now: float) -> float:
        """Return the seconds until a response in the background may be asked for; ``inf`` while a probe is sent."""
        return max(self.health.circuit.wait(now), self.recheck.wait(now))

    def polled(self, call: Call, now: float) -> None:
        """Update the state for a call that is about to ask for its response: no limit and no budget holds it up."""
        self._begin_exchange(call, now)
        background = call.background
        if background is not None and background.was_found and background.polls == background.failures == 0:
            # What an earlier run has had made is on its way, whether it fits or not.
            background.reservation = background.reservation or self._reserve(call)

    def settle_background(self, call: Call, verdict: Verdict) -> None:
        """Book a response in the background that has ended, or that the call asks for no more."""
        background = call.background
        if background is None or background.reservation is None or self._budget_tracker is None:
            return
        reservation, background.reservation = background.reservation, None
        usage = verdict.usage
        if usage is not None and call.size is not None:
            self._estimator.learn(call.size, usage)
        wrote = bool(getattr(verdict.value, "text", ""))
        # What is given up goes on at the server, until that hears of it.
        answered = verdict.kind == "success" or background.response is not None
        self._budget_tracker.returned(reservation, usage, answered=answered, wrote=wrote)

    def due(self, call: Call, now: float) -> None:
        """Note that the wait of a call that was sent here is over."""
        call.due_at, call.blocked_seconds_at_due = now, self.blocked_seconds(now)

    def take_from(self, other: Upstream, call: Call, now: float) -> None:
        """Take over a call, with the time in which the ``other`` upstream was blocked."""
        shift = self.blocked_seconds(now) - other.blocked_seconds(now)
        call.blocked_seconds_at_send += shift
        call.blocked_seconds_at_due += shift
        call.upstream_key = self.key

    # -- an attempt ends ----------------------------------------------------------------------------------

    def returned(self, call: Call, verdict: Verdict, reported: Optional[HeaderReport], now: float) -> None:
        """Update health, pacing and budget after an attempt of ``call``."""
        was_open, sent_at = self.health.circuit.is_open, call.sent_at or now
        # Many packs with one bad text each are neither an outage nor overload, nor are some rows on which the server
        # always stumbles; nor is a server that is starting.
        of_the_call = is_size_related(verdict) and (call.suspects > 1 or (self._failed_alone(call) and not was_open))
        for_health = verdict._replace(kind="fail") if of_the_call else verdict
        paced_send = call.paced_send
        if paced_send is not None:
            self._settle(call, paced_send, verdict, "fail" if verdict.about == "start" else for_health.kind, now)
        elif verdict.background is None and call.background is not None:
            self.settle_background(call, verdict)
        # A server that is starting says nothing about the pace, whatever the failures before it were.
        down = None if verdict.about == "start" else self.pacer.down
        self.health.returned(for_health, sent_at, now, down)
        if self.health.circuit.is_open and verdict.kind in FAILURE_KINDS:
            self.last_failure = failure_reason(verdict)
        self._update_recheck(call, verdict, sent_at, now)
        if self.score.several:
            self.score.returned(verdict.kind, sent_at, now)
        call.sent_at = None
        if paced_send is not None:
            if reported is not None:
                self.pacer.reported(paced_send, now, reported.requests, reported.tokens)
                self._estimator.limit = self.pacer.max_tokens
            call.paced_send = call.reservation = None
        if was_open and not self.health.circuit.is_open:
            self.pacer.restart()

    def _failed_alone(self, call: Call) -> bool:
        """Return whether the call failed before, or one that it is a part of, and one sent later succeeded."""
        failing_since = None if call.retry is None else call.retry.failing_since
        if failing_since is None and call.suspects == 1:
            failing_since = call.created_at  # when the call with more items was split
        return failing_since is not None and failing_since < self.recheck.good_sent_at

    def _update_recheck(self, call: Call, verdict: Verdict, sent_at: float, now: float) -> None:
        endpoint = self.score.endpoint
        if verdict.kind == "success":
            endpoint.worked_at = now
            self.recheck.succeeded(sent_at, now)
        elif verdict.about == "access" and not self.score.several and call.options.retrier.policy.max_retries:
            of_the_key = verdict.scope in ("run", "endpoint")
            self.recheck.rejected(sent_at, now, endpoint.worked_at if of_the_key else self.recheck.worked_at)
        else:
            self.recheck.ended(sent_at)

    def _settle(self, call: Call, paced_send: PacedSend, verdict: Verdict, kind: str, now: float) -> None:
        usage = verdict.usage
        if kind == "success":
            self.pacer.accepted(paced_send, now, None if usage is None else usage.total_tokens or None)
            if usage is not None and call.size is not None:
                self._estimator.learn(call.size, usage)
        elif kind == "throttled":
            self.pacer.rejected(paced_send, now, verdict.retry_after)
        elif kind == "unavailable":
            self.pacer.failed(paced_send, now, verdict.retry_after)
        elif kind == "timeout":
            self.pacer.timed_out(paced_send, now)
        elif verdict is UNSENT:
            self.pacer.unsent(paced_send, now)
        else:
            self.pacer.ended()
        if verdict.background is not None and call.background is not None:
            call.background.reservation = call.reservation  # until the response has ended
        elif call.reservation is not None and self._budget_tracker is not None:
            # An answer that did not come in time may have been written, and billed, all the same.
            answered, wrote = verdict.kind in ("success", "timeout"), bool(getattr(verdict.value, "text", ""))
            self._budget_tracker.returned(call.reservation, usage, answered=answered, wrote=wrote)

    # -- state --------------------------------------------------------------------------------------------

    def snapshot(self, now: float, outstanding: int) -> HealthSnapshot:
        """Return its health for a retry decision, with ``outstanding`` calls in flight or parked."""
        snapshot = self.health.snapshot(now, outstanding)
        return snapshot._replace(chance_rejections=self.pacer.chance_rejections, overloaded=self.pacer.overloaded)

    def blocked_seconds(self, now: float) -> float:
        """Return the seconds for which it has been blocked so far because the server was down."""
        return self.health.circuit.total_open_seconds(now)

    def hold(self, now: float, call: Optional[Call] = None) -> Optional[Hold]:
        """Return what holds back ``call``, which is queued, or None: calls of any size; None where nothing does."""
        if self.score.tripped is not None:
            return Hold("server refuses all calls, checking again", self.score.ejected_for(now))
        rejected_for = self.health.rejected_for(now)
        if rejected_for:
            is_of_day = isinstance(self.health.rejection_at(now), DayLimitError)
            return day_hold(rejected_for) if is_of_day else asked_to_wait(rejected_for)
        if self.health.circuit.is_open:
            return Hold("server down, probing", self.health.circuit.wait(now))
        if self.recheck.pause is not None:
            return Hold("server refuses calls that it took before, checking again", self.recheck.wait(now))
        day_wait = self._day_wait(now, call)
        if day_wait:
            is_counted = self._leases is None or self._leases.limit.is_shared
            return day_hold(day_wait) if is_counted else Hold("count of the day out of reach, trying again", day_wait)
        if call is None:
            return self.pacer.hold(now)
        tracker = self._budget_tracker
        if tracker is not None and tracker.would_exceed(*self._need(call)):
            return Hold("budget is nearly used up, waiting for answers")
        hold = self.pacer.hold(now, self._tokens(call))
        lease_wait = 0.0 if hold is not None or self._leases is None else self._leases.wait(now)
        return limit_hold(lease_wait, "shared", self.pacer.configured_rate) if lease_wait else hold

    def _day_wait(self, now: float, call: Optional[Call]) -> float:
        """Return the seconds until the configured day has room for ``call``, or (None) for a call of any size."""
        if self._leases is not None:
            return self._leases.day_has_room_in(now)
        return self.pacer.day_wait(now, 0.0 if call is None else self._tokens(call))

    def stats(self, now: float) -> LineStats:
        """Return its state for a person."""
        stats, pace = self.health.stats(now), self.pacer.pace(now)
        hold = self.hold(now, self.queue.any_call())
        waits_for = None if hold is None else hold.reason
        stats = replace(stats, rate=pace.rate, concurrency_limit=pace.concurrency_limit, waits_for=waits_for)
        left = self.pacer.day_left(now) if self._leases is None else self._leases.limit.day_left
        if left is not None:
            requests_left, tokens_left = left.known
            stats = replace(stats, day_requests_left=requests_left, day_tokens_left=tokens_left)
        reason = self.score.tripped
        if reason is not None:
            ejected_for = self.score.ejected_for(now)
            paused_until = None if math.isinf(ejected_for) else ejected_for
            return replace(stats, paused_until=paused_until, why=f"left alone: {reason}")
        if self.recheck.pause is not None:
            return replace(stats, why="it has worked and is refused now: single calls look again")
        return stats if stats.why else replace(stats, paused_until=pace.paused_for, why=pace.why)


def _size(call: Call) -> RequestSize:
    if call.size is None:
        call.size = request_size(call.request)
    return call.size


class HeaderReport(NamedTuple):
    """The limits in the headers of an answer."""

    requests: Optional[StatedLimit]
    tokens: Optional[StatedLimit]


def reported_limits(verdict: Verdict) -> Optional[HeaderReport]:
    """Return the limits that an answer reports, None without any; call it without a lock, for it takes a while."""
    if not verdict.limits:
        return None
    return HeaderReport(*stated_limits(verdict.limits))


class Outage(NamedTuple):
    """A model whose servers are all known to be down.

    Attributes:
        endpoint: the name of one of them.
        seconds: how long it has been down.
        retry_after: seconds until the next probe is to be expected.
        last_failure: its latest failure, in a few words.
        probe_is_due: whether a call may be sent now to find out.
    """

    endpoint: str
    seconds: float
    retry_after: float
    last_failure: str
    probe_is_due: bool

    def error(self, cause: Optional[ChatPoolError] = None) -> APIConnectionError:
        """Return the error of a call that does not wait; ``cause`` is how its own attempt ended, None without one."""
        what_ended = "the call was not sent" if cause is None else f"its attempt ended with: {cause}"
        error = APIConnectionError(
            f"{self.endpoint} has been down for {self.seconds:.1f} s ({self.last_failure}), and when_down='raise' does "
            f"not wait for it: {what_ended}; the next probe is due in {self.retry_after:.1f} s",
            retry_after=self.retry_after,
        )
        error.__cause__ = cause
        return error


class CallQueue:
    """The calls to one model, and the upstreams that draw from it: one for each endpoint of the pool.

    No call belongs to an endpoint before it is sent, so that none is stuck behind one that is slow or down.

    Calls of a higher level go first (see ``CallOptions.level``).  On one level the single calls and each run take
    turns.

    Not thread-safe: the scheduler holds its lock.

    Attributes:
        upstreams: at least one.
        level: the level of the calls that are looked at.
        used_at: the number of the turn in which a call of it was sent last.
    """

    __slots__ = ("_levels", "level", "upstreams", "used_at")

    def __init__(self) -> None:
        self.upstreams: List[Upstream] = []
        self.level = 0
        self.used_at = 0
        self._levels: Dict[int, OrderedDict[Optional[int], _Turn]] = {}  # next in turn first

    # -- calls ------------------------------------------------------------------------------------------

    def add(self, call: Call) -> None:
        """Queue a fresh call."""
        self._turn(call).fresh.append(call)

    def add_due(self, call: Call) -> None:
        """Queue a call whose wait is over."""
        self._turn(call).due.append(call)

    def _turn(self, call: Call) -> _Turn:
        level = call.options.level
        turns = self._levels.get(level)
        if turns is None:
            turns = self._levels[level] = OrderedDict()
        turn = turns.get(call.sink.run_id)
        if turn is None:
            turn = turns[call.sink.run_id] = _Turn()
        return turn

    def has_calls(self, level: int) -> bool:
        """Return whether any call of a level is queued; from then on those are looked at."""
        self.level = level
        turns = self._levels.get(level)
        while turns:
            if next(iter(turns.values())).has_calls():
                return True
            turns.popitem(last=False)
        self._levels.pop(level, None)
        return False

    def levels(self) -> List[int]:
        """Return the levels that have calls."""
        return [level for level in list(self._levels) if self.has_calls(level)]

    def first(self, upstream: Upstream, now: float) -> Optional[Call]:
        """Return the call that ``upstream`` sends next, None if it may send none of the queued calls."""
        if len(self.upstreams) == 1:  # called several times for each call, however many runs take turns
            first, then = next(iter(self._levels[self.level].values())).in_order(upstream)
            return (first or then)[0]
        waiting = (call for turn in self._turns() for queue in turn.in_order(upstream) for call in queue)
        return next((call for call in waiting if self._may_send(upstream, call, now)), None)

    def _turns(self) -> List[_Turn]:
        return list(self._levels.get(self.level, {}).values())

    def _may_send(self, upstream: Upstream, call: Call, now: float) -> bool:
        state = call.failover_state or _NO_FAILURES
        if call.state != QUEUED or not state.may_use(upstream.key, now):
            return False
        others = [other for other in self.upstreams if other.key not in state.refusals]
        if upstream.too_large(call) and not all(other.too_large(call) for other in others):
            return False
        return not upstream.day_is_full(call, now) or all(
            other.day_is_full(call, now) or other.score.reason_against(now) is not None for other in others
        )

    def rotate(self, call: Call) -> bool:
        """Take out a call that was sent: the others of its level go first now; return whether there are any."""
        turns = self._levels[call.options.level]
        turn = turns[call.sink.run_id]
        if len(self.upstreams) > 1:  # one of several may have taken it from the middle
            queue = turn.due if call in turn.due else turn.fresh
            queue.remove(call)
        # Now, while it runs: parked and queued again, it must not be found in its old place as well.
        has_more = turn.has_calls()
        if len(turns) > 1:
            turns.move_to_end(call.sink.run_id)
        return has_more or self.has_calls(call.options.level)

    def take_out(self, call: Call) -> None:
        """Take a queued call out."""
        turn = self._turn(call)
        (turn.due if call in turn.due else turn.fresh).remove(call)

    def queued(self) -> List[Call]:
        """Return all calls that are queued."""
        turns = [turn for turns in self._levels.values() for turn in turns.values()]
        return [call for turn in turns for queue in (turn.due, turn.fresh) for call in queue if call.state == QUEUED]

    def any_call(self, run_id: Optional[int] = None) -> Optional[Call]:
        """Return a call that is queued, of this run if there is one given; None without any.  Changes nothing."""
        for turns in self._levels.values():
            for turn in turns.values() if run_id is None else [turns[run_id]] if run_id in turns else []:
                queued = (call for calls in (turn.due, turn.fresh) for call in calls if call.state == QUEUED)
                call = next(queued, None)
                if call is not None:
                    return call
        return None

    # -- upstreams ----------------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Return whether it may be forgotten: no call is queued or outstanding, no server down, no day counted."""
        idle = all(upstream.outstanding() == 0 and not upstream.health.circuit.is_open for upstream in self.upstreams)
        return idle and not self.levels() and not any(upstream.pacer.remembers_day for upstream in self.upstreams)

    def next_upstream(self, now: float) -> Tuple[Optional[Upstream], float]:
        """Return the upstream that sends next, or None and the seconds until one may (``inf``: unknown).

        Only for a queue that has calls.
        """
        if len(self.upstreams) > 1:
            return self._choose(now)
        upstream = self.upstreams[0]
        wait = upstream.wait(now)
        return (upstream, 0.0) if wait <= 0 else (None, wait)

    def _choose(self, now: float) -> Tuple[Optional[Upstream], float]:
        """Choose the one of several that is expected to answer first."""
        waits = [self._wait_of(upstream, now) for upstream in self.upstreams]
        ready = [upstream for upstream, wait in zip(self.upstreams, waits) if wait <= 0]
        if len(ready) > 1:
            usual = self._usual_latency()
            return min(ready, key=lambda upstream: upstream.score.expected(usual, now)), 0.0
        if ready:
            return ready[0], 0.0
        if all(upstream.score.reason_against(now) is not None for upstream in self.upstreams):
            # The calls fail at once, at one of those whose server has said until when it refuses.
            refused = [upstream for upstream in self.upstreams if upstream.health.rejection_at(now) is not None]
            soonest = min(refused, key=lambda upstream: upstream.health.rejected_for(now), default=None)
            return soonest, min(waits)
        return None, min(waits)

    def _wait_of(self, upstream: Upstream, now: float) -> float:
        wait = upstream.score.ejected_for(now)
        if wait > 0:
            return wait
        if self.first(upstream, now) is None:
            return self._avoided_for(upstream, now)
        return upstream.wait(now)

    def _avoided_for(self, upstream: Upstream, now: float) -> float:
        """Return the seconds until one of the calls may go to ``upstream``: all failed there a moment ago."""
        due = (call for turn in self._turns() for call in turn.due if call.state == QUEUED)
        times = [call.failover_state.avoided_until(upstream.key) for call in due if call.failover_state is not None]
        return max(0.0, min(times, default=math.inf) - now)

    def _usual_latency(self) -> float:
        """Return the latency to expect of an upstream without answers: it is to be tried, but not by all at once."""
        latencies = [upstream.score.latency for upstream in self.upstreams if upstream.score.latency]
        return min(latencies, default=_UNKNOWN_LATENCY_SECONDS)

    def upstream_for(self, call: Call, now: float) -> Upstream:
        """Return the upstream for a call that is in no queue and cannot wait for its turn."""
        if len(self.upstreams) == 1:
            return self.upstreams[0]
        state, usual = call.failover_state or _NO_FAILURES, self._usual_latency()
        return min(
            self.upstreams,
            key=lambda upstream: (
                upstream.score.probes_only or not state.may_use(upstream.key, now),
                upstream.blocked_for(now),
                upstream.score.expected(usual, now),
            ),
        )

    def outage(self, now: float) -> Optional[Outage]:
        """Return the outage that keeps all calls back, None while some server is not known to be down."""
        down = [upstream for upstream in self.upstreams if upstream.health.circuit.is_open]
        others = [upstream for upstream in self.upstreams if upstream not in down]
        if not down or any(upstream.score.reason_against(now) is None for upstream in others):
            return None
        circuits = [upstream.health.circuit for upstream in down]
        seconds = max(now - (circuit.down_since or now) for circuit in circuits)
        retry_after = min(circuit.retry_after(now) for circuit in circuits)
        probe_is_due = any(circuit.wait(now) <= 0 for circuit in circuits)
        return Outage(down[0].key[0], seconds, retry_after, down[0].last_failure, probe_is_due)

    def may_block(self) -> bool:
        """Return whether a call may have to wait for long before it is sent."""
        return any(upstream.may_block() for upstream in self.upstreams)

    def with_others(self, call: Call, upstream: Upstream, snapshot: HealthSnapshot, now: float) -> HealthSnapshot:
        """Return the ``snapshot`` of an upstream, completed with what the others could do for the call."""
        if len(self.upstreams) == 1:
            return snapshot
        state = call.failover_state or _NO_FAILURES
        others = [other for other in self.upstreams if other is not upstream]
        others = [other for other in others if other.score.reason_against(now) is None]
        peers = [other for other in others if other.key not in state.refusals]
        healthy = [other for other in peers if not other.health.circuit.is_open and state.may_use(other.key, now)]
        snapshots = [other.health.snapshot(now, 1) for other in others] + [snapshot]
        return snapshot._replace(
            has_healthy_peer=bool(healthy),
            has_peer=bool(peers),
            down_for=_least([item.down_for for item in snapshots]),
            rejected_for=_least([item.rejected_for for item in snapshots]),
            proven=any(item.proven for item in snapshots),
        )


def _least(seconds: List[Optional[float]]) -> Optional[float]:
    """Return the least of all values; None if one of them is None."""
    known = [value for value in seconds if value is not None]
    return min(known) if len(known) == len(seconds) else None


class _Turn:
    """The calls that take turns with other calls: those of one run, or all single ones."""

    __slots__ = ("due", "fresh")

    def __init__(self) -> None:
        self.due: Deque[Call] = deque()  # parked before, ready now: they go first
        self.fresh: Deque[Call] = deque()

    def has_calls(self) -> bool:
        for queue in (self.due, self.fresh):
            while queue and queue[0].state != QUEUED:
                queue.popleft()  # it runs, or was given up where it stood
        return bool(self.due or self.fresh)

    def in_order(self, upstream: Upstream) -> Tuple[Deque[Call], Deque[Call]]:
        # A probe of a server that is down may well be lost: it costs least where least was tried.
        return (self.fresh, self.due) if upstream.health.circuit.is_open else (self.due, self.fresh)
