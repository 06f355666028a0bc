"""Which call runs next.

One lock guards everything here.  Methods decide and return what is to be done; starting threads, delivering and
sending happen outside, in :mod:`chatpool._engine.engine`.

Workers come and go: one that finds nothing to send ends, except that a single one stays to wait for the first
moment at which there will be something.  So a pool in which nothing is parked has no thread that wakes up.

How many workers there are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from .._locks import Condition, barging, is_held, new_lock
from .._policy.budget import BudgetTracker
from .._policy.circuit_breaker import CommonRejections
from .._policy.health import HealthSnapshot, UpstreamHealth
from .._transport import CancelToken
from ..clock import Clock
from ..errors import ChatPoolError
from ..types import LineStats, Verdict
from .call import DONE, NEW, PARKED, QUEUED, RUNNING, Call, OutcomeSink, UpstreamKey
from .call_registry import CallRegistry
from .leases import LeaseRequest
from .upstream import HeaderReport, Upstream, read_limits
from .upstreams import Ejection, EndpointSpec, UpstreamFactory, Upstreams

if TYPE_CHECKING:
    from .._quota import Slot

__all__ = ["NextStep", "Scheduler", "WorkerCount"]


class WorkerCount:
    """Counts workers, at most ``max_workers`` of them.

    Not thread-safe: the scheduler holds its lock.

    Attributes:
        waiting: whether one of them waits until a call may be sent.
    """

    __slots__ = ("_alive", "_max_workers", "_starting", "waiting")

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._starting = 0  # asked for, not running yet
        self._alive = 0
        self.waiting = False

    def room(self) -> bool:
        """Whether there may be another."""
        return self._starting + self._alive < self._max_workers

    def hire(self, wanted: int) -> int:
        """Ask for ``wanted`` more; returns how many are to be started."""
        hired = max(0, min(wanted, self._max_workers - self._starting - self._alive))
        self._starting += hired
        return hired

    def started(self) -> None:
        """One of them runs."""
        self._starting = max(0, self._starting - 1)
        self._alive += 1

    def not_started(self) -> int:
        """One of them could not be started; returns how many are left."""
        self._starting = max(0, self._starting - 1)
        return self._starting + self._alive

    def ended(self) -> None:
        """One of them has nothing left to do."""
        self._alive -= 1

    def forget_starting(self) -> None:
        """Nobody knows whether those that were asked for will come: ask again.

        One that comes after all finds nothing to do and ends.
        """
        self._starting = 0


_READ_EVERY = 0.02  # seconds: thousands of answers a second need not all be asked for the same limits


class NextStep(NamedTuple):
    """What a worker does next: run ``call``, put ``question``, wait until there is something, or (none of them) end.

    Attributes:
        call: the call to run.
        question: what to ask a shared limit; the answer goes to :meth:`Scheduler.answered`.
        wait: whether to call :meth:`Scheduler.wait_for_work` and ask again.
        more_workers: how many further workers are to be started first.
    """

    call: Optional[Call] = None
    question: Optional[LeaseRequest] = None
    wait: bool = False
    more_workers: int = 0


class Scheduler:
    """Ready, parked and running calls of one pool, and the workers for them.

    Args:
        max_workers: the concurrency cap.
        plans: the endpoints; none for a single one without limits.
        spending: what has been spent of the pool's budget, None without one.
    """

    def __init__(
        self,
        max_workers: int,
        plans: Sequence[EndpointSpec] = (),
        spending: Optional[BudgetTracker] = None,
    ) -> None:
        self.lock = new_lock()
        self._in_worker = barging(self.lock)
        self._changed = Condition(self.lock)  # a waiting worker has to look again
        self._all_ended = Condition(self.lock)
        self._max_workers = max_workers
        if spending is not None:
            spending.forget_in_flight()  # the scheduler is made anew in a forked child
        self._staff = WorkerCount(max_workers)
        self._make = UpstreamFactory(plans, spending)
        self._lines = Upstreams(self._make)
        self._ledger = CallRegistry()
        self._refusals = CommonRejections(max_workers)
        self._waits_until = math.inf

    # -- calls come in ------------------------------------------------------------------------------

    def submit(self, calls: Iterable[Call]) -> int:
        """Queue fresh calls; returns how many workers to start."""
        with self.lock:
            added = 0
            for call in calls:
                if call.state != NEW:  # cancelled before it came here
                    continue
                self._lines.add(call)
                call.state = QUEUED  # only now: what is queued is in a queue, whatever comes between
                added += 1
            self._ledger.queued(added)
            if self._staff.waiting:
                self._changed.notify_all()
                added -= 1
            return self._staff.hire(added)

    def adopt(self, call: Call, now: float) -> None:
        """A call that runs in its caller's own worker: known here so that it can be given up, never queued."""
        with self.lock:
            call.state = QUEUED
            self._ledger.queued()
            self._start(call, self._lines.of(call).queue.line_for(call, now), now)

    # -- workers ask ----------------------------------------------------------------------------------

    def worker_started(self) -> None:
        """The asking thread is a worker from now on, until a step tells it to end."""
        with self._in_worker:
            self._staff.started()

    def worker_ended(self) -> None:
        """A worker ends out of turn."""
        with self._in_worker:
            self._staff.ended()

    def worker_not_started(self) -> int:
        """A worker could not be started; returns how many there are."""
        with self.lock:
            return self._staff.not_started()

    def next_step(self, now: float) -> NextStep:
        """What the asking worker does next."""
        with self._in_worker:
            self._wake_parked(now)
            line, wait = self._next_line(now)
            call = None if line is None else line.queue.first(line, now)
            if line is not None and call is not None:
                question = line.question(now)
                if question is not None:
                    return NextStep(question=question, more_workers=self._successors(now))
                self._start(call, line, now)
                self._lines.had_its_turn(line.queue, call, now)
                return NextStep(call, None, False, self._successors(now))  # by position: once per call
            if self._needs_waiter(now, wait):
                self._staff.waiting = True
                return NextStep(wait=True)
            self._staff.ended()
            return NextStep()

    def answered(self, question: LeaseRequest, slot: Slot, now: float) -> None:
        """A shared limit has answered the worker's question."""
        with self._in_worker:
            question.grants.answered(slot, now)

    def close_grants(self) -> None:
        """Let go of the files and connections of shared limits; not under the lock."""
        for line in self._lines:
            line.close_grants()

    def question_for(self, call: Call) -> Optional[LeaseRequest]:
        """What a running call that was in no queue has to ask a shared limit, None if nothing."""
        with self._in_worker:
            return self._lines.of(call).question_for(call)

    def paused_for(self, call: Call, now: float) -> float:
        """Seconds for which the call's line is paused after a refusal."""
        with self._in_worker:
            return self._lines.of(call).pacer.pace(now).paused_for or 0.0

    def _needs_waiter(self, now: float, wait: float) -> bool:
        """Whether a worker is to wait so long; one that already does, for longer, is told to look again."""
        if math.isinf(wait):
            return False
        if self._staff.waiting and now + wait < self._waits_until:
            self._changed.notify_all()
        return not self._staff.waiting

    def _next_line(self, now: float) -> Tuple[Optional[Upstream], float]:
        """The line whose turn it is, or None and the seconds until that may change."""
        line, wait = self._lines.next(now)
        return line, 0.0 if line is not None else min(wait, self._ledger.next_due(now))

    def _successors(self, now: float) -> int:
        """Whoever leaves with a call makes sure that the rest is looked after."""
        if not self._staff.room():
            return 0
        line, wait = self._next_line(now)
        needed = line is not None or self._needs_waiter(now, wait)
        return self._staff.hire(1) if needed else 0

    def wait_for_work(self, clock: Clock) -> None:
        """Wait until a call may be sent, or until there is something else to look at."""
        with self.lock:
            try:
                now = clock.now()
                self._wake_parked(now)
                _, wait = self._next_line(now)
                if wait > 0 and not math.isinf(wait):
                    self._waits_until = now + wait
                    clock.wait(self._changed, wait)
            finally:
                self._staff.waiting = False

    def _wake_parked(self, now: float) -> None:
        if self._ledger.anything_parked():
            for call in self._ledger.due(now):
                self._lines.add_due(call, now)

    def _start(self, call: Call, line: Upstream, now: float) -> None:
        self._ledger.start(call)
        if call.token is None:
            call.token = CancelToken()
        self._lines.bind(call, line, now)
        line.sent(call, now)

    # -- attempts return, calls go on or end ----------------------------------------------------------

    def returned(self, call: Call, verdict: Verdict, now: float) -> HealthSnapshot:
        """An attempt has ended; returns the line as it is now."""
        stated = self._stated(call, verdict, now)
        with self._in_worker:
            line = self._lines.of(call)
            on_their_way = line.on_their_way() + 1
            if call.sent_at is not None:
                on_their_way = min(on_their_way - 1, self._max_workers)
                line.returned(call, verdict, stated, now)
            view = line.queue.view(call, line, line.view(now, on_their_way), now)
            return self._with_evidence(view, call, verdict, line, now)

    def _stated(self, call: Call, verdict: Verdict, now: float) -> Optional[HeaderReport]:
        """The limits that an answer states: of all refusals, and of a success every now and then."""
        line = self._lines.known(call.line)
        if line is None or (verdict.kind == "success" and now < line.read_again_at):
            return None
        line.read_again_at = now + _READ_EVERY
        return read_limits(verdict)

    def _with_evidence(
        self, view: HealthSnapshot, call: Call, verdict: Verdict, line: Upstream, now: float
    ) -> HealthSnapshot:
        """``view`` with what other calls tell about a failure of this kind."""
        if verdict.about == "access":
            return view._replace(
                recheck=line.recheck.pause,
                good_sent_at=line.recheck.good_sent_at,
                unanimous=self._refuses_all(call, verdict, line),
            )
        if verdict.about == "start":
            since = line.health.circuit.down_since
            return view._replace(failing_for=None if since is None else now - since)
        is_end = call.options.ends_when_refused and self._refuses_all(call, verdict, line)
        return view._replace(unanimous=True) if is_end else view

    def _refuses_all(self, call: Call, verdict: Verdict, line: Upstream) -> bool:
        """Whether the line refuses every call, as far as those of the same run can tell."""
        if verdict.kind != "fail" or verdict.fingerprint is None:
            return False
        if line.health.proven and not line.recheck.stands:
            return False
        refusal = (line.key, call.sink.run_id, call.request.path, verdict.fingerprint, line.recheck.worked_at)
        return self._refusals.rejected(refusal, call.id)

    def succeed(self, call: Call, verdict: Verdict, now: float) -> Tuple[bool, int]:
        """``returned`` and ``end`` in one, for the commonest case.

        Returns:
            Whether the call had not ended before, and how many workers to start because its line was held.
        """
        stated = self._stated(call, verdict, now)
        with self._in_worker:
            workers = self._answered_well(call, verdict, stated, now)
            return self._end(call), workers

    def answered_well(self, call: Call, verdict: Verdict, now: float) -> int:
        """``returned`` for an answer that is looked at before the call ends, or goes on.

        Returns:
            How many workers to start: because its line was held, and because the asking one will be busy.
        """
        stated = self._stated(call, verdict, now)
        with self._in_worker:
            return self._answered_well(call, verdict, stated, now) + self._successors(now)

    def _answered_well(self, call: Call, verdict: Verdict, stated: Optional[HeaderReport], now: float) -> int:
        line = self._lines.of(call)
        line.standing.endpoint.proven = True
        if call.sent_at is None:
            return 0
        held = line.health.circuit.is_open or line.standing.tripped is not None or line.recheck.pause is not None
        line.returned(call, verdict, stated, now)
        return self._staff.hire(len(line.queue.queued())) if held and not line.health.circuit.is_open else 0

    def resend(self, call: Call, now: float) -> None:
        """A running call makes another attempt in the same worker."""
        with self._in_worker:
            line = self._lines.of(call).queue.line_for(call, now)
            self._lines.bind(call, line, now)
            line.sent(call, now)

    def park(self, call: Call, due: float) -> None:
        """Set a running call aside until ``due``, unless it has been given up meanwhile."""
        with self._in_worker:
            if call.state != RUNNING:
                return
            self._lines.of(call).parked += 1
            if self._ledger.park(call, due) and self._staff.waiting:
                self._changed.notify_all()

    def end(self, call: Call) -> bool:
        """The call has its outcome; False if it had ended before (then this outcome is not delivered)."""
        with self._in_worker:
            return self._end(call)

    def _end(self, call: Call) -> bool:
        if call.state == DONE:
            return False
        if call.state == PARKED:
            self._lines.of(call).parked -= 1
        self._ledger.end(call)
        if self._ledger.idle():
            self._all_ended.notify_all()
            if self._staff.waiting:  # for a moment at which somebody else has sent, earlier than it seemed
                self._changed.notify_all()
        return True

    def delivered(self, call: Call) -> None:
        """Its outcome is where it belongs."""
        self._ledger.delivered(call)

    def undelivered(self, sink: OutcomeSink) -> List[Call]:
        """The calls of ``sink`` that have ended and whose outcomes it has not got yet."""
        return self._ledger.undelivered_to(sink)

    def in_flight(self, sink: OutcomeSink) -> List[Call]:
        """The running calls of ``sink``; without the lock, for the garbage collector."""
        return [call for call in self._ledger.running() if call.sink is sink]

    def workers_wanted(self, now: float) -> int:
        """How many workers to start, because the asking one will be busy with somebody's callback."""
        with self._in_worker:
            return self._successors(now)

    def give_up(self, which: Callable[[Call], bool], *, in_flight: bool = True) -> List[Call]:
        """End all calls that ``which`` picks, without an outcome; returns them for the caller to deliver.

        Args:
            which: picks the calls.
            in_flight: whether calls whose exchange is under way are ended too.
        """
        with self.lock:
            given_up = [call for call in self._everyone(in_flight) if which(call)]
            for call in given_up:
                self._end(call)
            if given_up:
                self._ledger.forget_ended()
                self._changed.notify_all()
            return given_up

    def _everyone(self, in_flight: bool) -> List[Call]:
        found = self._lines.queued() + self._ledger.parked()
        return found + self._ledger.running() if in_flight else found

    def holds_up(self, call: Call, now: float) -> bool:
        """Whether it may take long until a worker gets to the call: all will be busy, or its line is held."""
        with self.lock:
            queued, _, running = self._ledger.counts()
            line = self._lines.of(call)
            return queued + running > self._max_workers or line.queue.may_hold_up() or line.wait(now) > 0

    def expire(self, call: Call) -> bool:
        """End one call without an outcome, unless a worker has it."""
        with self.lock:
            expired = call.state in (QUEUED, PARKED) and self._end(call)
            if expired:
                self._changed.notify_all()  # a worker may wait for the moment at which it may be sent
            return expired

    def cancel(self, call: Call) -> bool:
        """End one call without an outcome; it leaves its queue when its turn comes."""
        with self.lock:
            if not self._end(call):
                return False
            self._changed.notify_all()
            return True

    # -- waiting, and looking on --------------------------------------------------------------------------

    def wait_inline(self, call: Call, due: float, clock: Clock) -> None:
        """Wait until ``due``, or until the call is given up."""
        with self.lock:
            while call.state == RUNNING and clock.now() < due:
                clock.wait(self._changed, due - clock.now())

    def wait_until_idle(self, clock: Clock) -> None:
        """Wait until every call has its outcome."""
        with self.lock:
            while not self._ledger.idle():
                clock.wait(self._all_ended)

    def idle(self) -> bool:
        """Whether every call has its outcome."""
        with self.lock:
            return self._ledger.idle()

    def health(self, key: UpstreamKey) -> UpstreamHealth:
        """The health of a line: written under the lock only, single facts of it may be read without."""
        line = self._lines.known(key)
        return UpstreamHealth() if line is None else line.health

    def proven(self, endpoint: str) -> bool:
        """Whether any call to an endpoint has ever succeeded; works without the lock."""
        return self._make.health(endpoint).proven

    def leave_alone(self, call: Call, scope: str, reason: ChatPoolError, sent_at: float, now: float) -> Ejection:
        """The endpoint of a call that went out at ``sent_at`` refuses all calls of ``scope``: others get them."""
        with self._in_worker:
            return self._lines.leave_alone(call, scope, reason, sent_at, now)

    def held(self, call: Call, now: float) -> float:
        """Seconds for which the call's line has been held since its first send."""
        with self._in_worker:
            return self._lines.of(call).held(now) - call.held_before

    def refuse(self, key: UpstreamKey, until: float, error: ChatPoolError) -> None:
        """Send nothing to this line before ``until``."""
        with self._in_worker:
            self._lines.get(key).health.reject(until, error)

    def line_stats(self, now: float) -> Dict[UpstreamKey, LineStats]:
        """Return the state of all lines, for a person."""
        with self.lock:
            return self._line_stats(now)

    def line_stats_within(self, seconds: float, now: float) -> Optional[Dict[UpstreamKey, LineStats]]:
        """Return the same, for a thread that may hold the lock; None if the lock is not to be had in time."""
        if is_held(self.lock) or not self.lock.acquire(timeout=seconds):
            return None
        try:
            return self._line_stats(now)
        finally:
            self.lock.release()

    def _line_stats(self, now: float) -> Dict[UpstreamKey, LineStats]:
        return {line.key: line.stats(now) for line in self._lines}

    def counts(self) -> Tuple[int, int, int]:
        """How many calls are queued, parked and running; works without the lock."""
        return self._ledger.counts()

    def everyone(self) -> List[Call]:
        """All calls without an outcome, for a forked child: the lock may be held by a thread that is not there."""
        return list({*self._everyone(in_flight=True), *self._ledger.undelivered()})

    def repair(self) -> int:
        """Put the books in order after an exception that may have come in the middle of anything (Ctrl-C).

        Returns:
            How many workers to start.
        """
        with self.lock:
            self._lines.look_again()
            queued = len(self._lines.queued())
            parked = self._ledger.recount(queued)
            self._staff.forget_starting()
            self._changed.notify_all()
            return self._staff.hire(queued + bool(parked))
