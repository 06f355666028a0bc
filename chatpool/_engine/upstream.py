"""The calls to one (endpoint, model) that are ready to be sent, and whether they may be.

The calls to one model that wait for a line.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import replace
from typing import Deque, Dict, List, NamedTuple, Optional, Tuple

from .._measures import RequestSize, StatedLimit
from .._policy.budget import BudgetReservation, BudgetTracker, TokenEstimator
from .._policy.circuit_breaker import EndpointHealth
from .._policy.health import HealthSnapshot, UpstreamHealth
from .._policy.load_balancing import PeakLatencyScore
from .._policy.pacing import PacedSend, Pacer
from .._policy.retry import KeyRecheck, is_size_related
from .._wire.rate_limit_headers import stated_limits
from .._wire.request_size import request_size
from ..config import Limits
from ..errors import ChatPoolError, ConfigurationError
from ..types import LineStats, Verdict
from .call import QUEUED, Call, FailoverState, UpstreamKey
from .leases import LeaseHolder, LeaseRequest

__all__ = ["CallQueue", "HeaderReport", "PolicyTokens", "Upstream", "read_limits"]


_NOWHERE = FailoverState()


class _Turn:
    """The calls that take turns with those of others: of one run, or all singular ones."""

    __slots__ = ("due", "fresh")

    def __init__(self) -> None:
        self.due: Deque[Call] = deque()  # parked before, ready now: they go first
        self.fresh: Deque[Call] = deque()

    def has_calls(self) -> bool:
        for queue in (self.due, self.fresh):
            while queue and queue[0].state != QUEUED:
                queue.popleft()  # it runs, or was given up where it stood
        return bool(self.due or self.fresh)

    def in_order(self, line: Upstream) -> Tuple[Deque[Call], Deque[Call]]:
        # A probe of a server that is down may well be lost: it costs least where least was tried.
        return (self.fresh, self.due) if line.health.circuit.is_open else (self.due, self.fresh)


class CallQueue:
    """The calls to one model, and the lines that draw from it: one for each endpoint of the pool.

    No call belongs to an endpoint before it is sent, so that none is stuck behind one that is slow or down.

    Calls of a higher level go first (see ``CallOptions.level``).  On one level the singular calls and each run take
    turns.

    Not thread-safe: the scheduler holds its lock.

    Attributes:
        lines: at least one.
        level: the level of the calls that are looked at.
        used_at: the number of the turn in which a call of it was sent last.
    """

    __slots__ = ("_levels", "level", "lines", "used_at")

    def __init__(self) -> None:
        self.lines: List[Upstream] = []
        self.level = 0
        self.used_at = 0
        self._levels: Dict[int, OrderedDict[Optional[int], _Turn]] = {}  # next in turn first

    # -- calls ------------------------------------------------------------------------------------------

    def add(self, call: Call) -> None:
        """A fresh call."""
        self._turn(call).fresh.append(call)

    def add_due(self, call: Call) -> None:
        """A call whose wait is over."""
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

    def first(self, line: Upstream, now: float) -> Optional[Call]:
        """The call that ``line`` sends next, None if it may send none of those that there are."""
        if len(self.lines) == 1:  # asked for several times for each call, however many runs take turns
            first, then = next(iter(self._levels[self.level].values())).in_order(line)
            return (first or then)[0]
        waiting = (call for turn in self._turns() for queue in turn.in_order(line) for call in queue)
        return next((call for call in waiting if self._may_take(line, call, now)), None)

    def _turns(self) -> List[_Turn]:
        return list(self._levels.get(self.level, {}).values())

    def _may_take(self, line: Upstream, call: Call, now: float) -> bool:
        visits = call.visits or _NOWHERE
        if call.state != QUEUED or not visits.may_go(line.key, now):
            return False
        return not line.too_large(call) or all(
            other.too_large(call) for other in self.lines if other.key not in visits.refusals
        )

    def left(self, call: Call) -> None:
        """A call was sent: the others of its level go first now."""
        turns = self._levels[call.options.level]
        turn = turns[call.sink.run_id]
        if len(self.lines) > 1:  # one of several may have taken it from the middle
            queue = turn.due if call in turn.due else turn.fresh
            queue.remove(call)
        # Now, while it runs: parked and queued again, it must not be found in its old place as well.
        turn.has_calls()
        if len(turns) > 1:
            turns.move_to_end(call.sink.run_id)

    def queued(self) -> List[Call]:
        """All calls that are queued."""
        turns = [turn for turns in self._levels.values() for turn in turns.values()]
        return [call for turn in turns for queue in (turn.due, turn.fresh) for call in queue if call.state == QUEUED]

    # -- lines ------------------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Return whether no call is queued or on its way, and none would have to wait for a server that is down."""
        gone = all(line.on_their_way() == 0 and not line.health.circuit.is_open for line in self.lines)
        return gone and not self.levels()

    def next_line(self, now: float) -> Tuple[Optional[Upstream], float]:
        """The line that sends next, or None and the seconds until one may (``inf``: nobody knows); it has calls."""
        if len(self.lines) > 1:
            return self._choose(now)
        line = self.lines[0]
        wait = line.wait(now)
        return (line, 0.0) if wait <= 0 else (None, wait)

    def _choose(self, now: float) -> Tuple[Optional[Upstream], float]:
        """The one of several from which an answer is to be expected first."""
        waits = [self._wait_of(line, now) for line in self.lines]
        ready = [line for line, wait in zip(self.lines, waits) if wait <= 0]
        if len(ready) > 1:
            usual = self._usual_latency()
            return min(ready, key=lambda line: line.standing.expected(usual, now)), 0.0
        if ready:
            return ready[0], 0.0
        if all(line.standing.reason_against(now) is not None for line in self.lines):
            # The calls are to be told so at once, by one of those that have said until when.
            told = next((line for line in self.lines if line.health.rejection_at(now) is not None), None)
            return told, min(waits)
        return None, min(waits)

    def _wait_of(self, line: Upstream, now: float) -> float:
        wait = line.standing.ejected_for(now)
        if wait > 0:
            return wait
        if self.first(line, now) is None:
            return self._next_turn(line, now)
        return line.wait(now)

    def _next_turn(self, line: Upstream, now: float) -> float:
        """Seconds until one of the calls may go to ``line``: all have failed there a moment ago."""
        due = (call for turn in self._turns() for call in turn.due)
        turns = [call.visits.until(line.key) for call in due if call.state == QUEUED and call.visits is not None]
        return max(0.0, min(turns, default=math.inf) - now)

    def _usual_latency(self) -> float:
        """What to expect of a line that has not answered yet: it is to be tried, and not by all calls at once."""
        return min((line.standing.latency for line in self.lines if line.standing.latency), default=1.0)

    def line_for(self, call: Call, now: float) -> Upstream:
        """The line for a call that is in no queue and cannot wait for its turn."""
        if len(self.lines) == 1:
            return self.lines[0]
        visits, usual = call.visits or _NOWHERE, self._usual_latency()
        return min(
            self.lines,
            key=lambda line: (
                line.standing.probes_only or not visits.may_go(line.key, now),
                line.held_for(now),
                line.standing.expected(usual, now),
            ),
        )

    def may_hold_up(self) -> bool:
        """Whether a call may have to wait for long before it is sent."""
        return any(line.may_hold_up() for line in self.lines)

    def view(self, call: Call, line: Upstream, view: HealthSnapshot, now: float) -> HealthSnapshot:
        """``line`` as a retry decision sees it, with what the others could do for the call."""
        if len(self.lines) == 1:
            return view
        visits = call.visits or _NOWHERE
        others = [other for other in self.lines if other is not line and other.standing.reason_against(now) is None]
        left = [other for other in others if other.key not in visits.refusals]
        free = [other for other in left if not other.health.circuit.is_open and visits.may_go(other.key, now)]
        views = [other.health.snapshot(now, 1) for other in others] + [view]
        return view._replace(
            has_healthy_peer=bool(free),
            has_peer=bool(left),
            down_for=_least([each.down_for for each in views]),
            rejected_for=_least([each.rejected_for for each in views]),
            proven=any(each.proven for each in views),
        )


def _least(seconds: List[Optional[float]]) -> Optional[float]:
    """How long all have been so; None if one is not."""
    known = [each for each in seconds if each is not None]
    return min(known) if len(known) == len(seconds) else None


class PolicyTokens(NamedTuple):
    """What the line's policies noted about an attempt when it was sent; they get it back when it returns."""

    sent: PacedSend
    reservation: Optional[BudgetReservation] = None


class HeaderReport(NamedTuple):
    """What the headers of an answer say about limits."""

    requests: Optional[StatedLimit]
    tokens: Optional[StatedLimit]


def read_limits(verdict: Verdict) -> Optional[HeaderReport]:
    """The limits that an answer states, None without any; to be called without a lock, for it takes a while."""
    if not verdict.limits:
        return None
    return HeaderReport(*stated_limits(verdict.limits))


class Upstream:
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
        key: UpstreamKey,
        limits: Optional[Limits] = None,
        spending: Optional[BudgetTracker] = None,
        grants: Optional[LeaseHolder] = None,
        *,
        queue: CallQueue,
        endpoint: EndpointHealth,
        weight: Optional[float] = None,
    ) -> None:
        self.key = key
        self.queue = queue
        self.health = UpstreamHealth()
        self.standing = PeakLatencyScore(endpoint, self.health, weight or 1.0, several=weight is not None)
        self.pacer = Pacer(limits)
        self.recheck = KeyRecheck()
        self.parked = 0
        self.read_again_at = 0.0
        self._spending = spending
        self._grants = grants
        self._estimator = TokenEstimator(None if limits is None else limits.tokens_per_minute)

    # -- calls ------------------------------------------------------------------------------------------

    def take_over(self, call: Call, before: Upstream, now: float) -> None:
        """A call comes from another line, with the time in which that one has held it."""
        shift = self.held(now) - before.held(now)
        call.held_before += shift
        call.held_when_due += shift
        call.line = self.key

    def held_for(self, now: float) -> float:
        """About how long it will be until any call may be sent."""
        return max(self.standing.ejected_for(now), self.health.circuit.wait(now), self._pace(now))

    def due(self, call: Call, now: float) -> None:
        """The wait of a call that was sent here is over."""
        call.due_at, call.held_when_due = now, self.held(now)

    def too_large(self, call: Call) -> Optional[str]:
        """Why a call can never be within the limits, None if it can."""
        return self.pacer.too_large(self._tokens(call)) if self.pacer.counts_tokens else None

    def on_their_way(self) -> int:
        """How many calls are in flight or parked."""
        return self.health.circuit.in_flight + self.parked

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
        wait = max(self.health.circuit.wait(now), self.recheck.wait(now))
        if wait > 0:
            return wait
        if self.health.rejection_at(now) is not None:
            return 0.0  # it is to be told so at once
        if self._spending is None and not self.pacer.counts_tokens:
            return self._pace(now)
        call = self.queue.first(self, now)
        return 0.0 if call is None else self._wait_by_size(now, call)

    def _wait_by_size(self, now: float, call: Call) -> float:
        tokens = self._tokens(call)
        if self._reason_against(call, tokens) is not None:
            return 0.0  # it is to be told so at once
        if self._spending is not None and self._spending.would_exceed(
            self.key[1], self._estimator.expected(_size(call))
        ):
            return math.inf
        return self._pace(now, tokens)

    def _pace(self, now: float, tokens: float = 0.0) -> float:
        return self.pacer.wait(now, tokens, probe=self.health.circuit.is_open)

    def question(self, now: float) -> Optional[LeaseRequest]:
        """What has to be asked before its first call is sent, None if nothing."""
        if self._grants is None or not self._grants.lacking(now):
            return None
        call = self.queue.first(self, now)
        if call is None or not self._may_be_sent(call, now):
            return None
        return self._grants.question(self._tokens(call))

    def question_for(self, call: Call) -> Optional[LeaseRequest]:
        """What has to be asked before ``call``, which is in no queue, is sent; None if nothing."""
        if self._grants is None or call.grant is not None or call.unsendable is not None:
            return None
        return LeaseRequest(self._grants, self._tokens(call))

    @property
    def shared(self) -> bool:
        """Whether its limits are shared with other processes."""
        return self._grants is not None

    def close_grants(self) -> None:
        """Let go of files and connections; not under the lock."""
        if self._grants is not None:
            self._grants.limit.close()

    def _may_be_sent(self, call: Call, now: float) -> bool:
        if self.health.rejection_at(now) is not None:
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
        if self._spending.would_exceed(self.key[1], expected):
            return None
        return self._spending.rejection(self.key[1], expected)

    def sent(self, call: Call, now: float) -> None:
        """A call is about to be sent; ``call.unsendable`` says if it must not be."""
        self._note_time(call, now)
        self.health.circuit.sent()
        self.recheck.sent()
        if self.standing.several:
            self.standing.sent(now)
        self._note_sent(call, now)
        if self._grants is not None and call.unsendable is None:
            call.grant = self._grants.take(now, self._tokens(call))

    def _note_sent(self, call: Call, now: float) -> None:
        if self._spending is None and not self.pacer.counts_tokens:
            call.paced = PolicyTokens(self.pacer.sent(now))
            return
        tokens = self._tokens(call)
        call.unsendable = self._reason_against(call, tokens)
        if call.unsendable is None:
            reservation = None
            if self._spending is not None:
                reservation = self._spending.reservation(self.key[1], self._estimator.expected(_size(call)))
                self._spending.sent(reservation)
            call.paced = PolicyTokens(self.pacer.sent(now, tokens), reservation)

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
        return self.health.circuit.is_open or self.pacer.limited or self.recheck.pause is not None

    # -- answers ----------------------------------------------------------------------------------------

    def returned(self, call: Call, verdict: Verdict, stated: Optional[HeaderReport], now: float) -> None:
        """The attempt of ``call`` that was under way has ended with ``verdict``."""
        was_open, sent_at = self.health.circuit.is_open, call.sent_at or now
        # Many packs with one bad text each are neither an outage nor overload, nor are some rows on which the server
        # always stumbles; nor is a server that is starting.
        of_the_call = is_size_related(verdict) and (call.suspects > 1 or (self._stumbled_alone(call) and not was_open))
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
                self.pacer.reported(call.paced.sent, now, stated.requests, stated.tokens)
                self._estimator.limit = self.pacer.max_tokens_per_minute
            call.paced = None
        if was_open and not self.health.circuit.is_open:
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
            self.recheck.rejected(sent_at, now, endpoint.worked_at if of_the_key else self.recheck.worked_at)
        else:
            self.recheck.ended(sent_at)

    def _settle(self, call: Call, paced: PolicyTokens, verdict: Verdict, kind: str, now: float) -> None:
        usage = verdict.usage
        if kind == "success":
            self.pacer.accepted(paced.sent, now, None if usage is None else usage.total_tokens or None)
            if usage is not None and call.size is not None:
                self._estimator.learn(call.size, usage)
        elif kind == "throttled":
            self.pacer.rejected(paced.sent, now, verdict.wait_hint)
        elif kind == "unavailable":
            self.pacer.failed(paced.sent, now, verdict.wait_hint)
        elif kind == "timeout":
            self.pacer.timed_out(paced.sent, now)
        else:
            self.pacer.ended()
        if paced.reservation is not None and self._spending is not None:
            # An answer that did not come in time may have been written, and billed, all the same.
            answered, wrote = verdict.kind in ("success", "timeout"), bool(getattr(verdict.value, "text", ""))
            self._spending.returned(paced.reservation, usage, answered=answered, wrote=wrote)

    def view(self, now: float, on_their_way: int) -> HealthSnapshot:
        """This line as a retry decision sees it, with so many calls in flight or parked."""
        view = self.health.snapshot(now, on_their_way)
        return view._replace(chance_rejections=self.pacer.chance_rejections, overloaded=self.pacer.overloaded)

    # -- for a person -----------------------------------------------------------------------------------

    def held(self, now: float) -> float:
        """Seconds it has been held because the server was down."""
        return self.health.circuit.total_open_seconds(now)

    def stats(self, now: float) -> LineStats:
        """This state for a person."""
        stats, pace = self.health.stats(now), self.pacer.pace(now)
        stats = replace(stats, rate=pace.rate, concurrency_limit=pace.concurrency_limit)
        reason = self.standing.tripped
        if reason is not None:
            alone = self.standing.ejected_for(now)
            return replace(stats, paused_until=None if math.isinf(alone) else alone, why=f"left alone: {reason}")
        if self.recheck.pause is not None:
            return replace(stats, why="it has worked and is refused now: single calls look again")
        return stats if stats.why else replace(stats, paused_until=pace.paused_for, why=pace.why)


def _size(call: Call) -> RequestSize:
    if call.size is None:
        call.size = request_size(call.request)
    return call.size
