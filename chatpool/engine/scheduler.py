"""Which call runs next.

One lock guards everything here.  Methods decide and return what is to be done; starting threads, delivering and
sending happen outside, in :mod:`chatpool.engine.executor`.

Workers come and go: one that finds nothing to send ends, except that a single one stays to wait for the first
moment at which there will be something.  So a pool in which nothing is parked has no thread that wakes up.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections import OrderedDict
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from ..clock import Clock
from ..config import Limits
from ..errors import ChatPoolError
from ..policy.health import LineHealth, LineView
from ..policy.spending import Spending
from ..quota import Sharing, Slot
from ..transport import CancelToken
from ..types import LineStats, Verdict
from .call import DONE, NEW, PARKED, QUEUED, RUNNING, Call, LineKey, Sink
from .grants import Grants, Question
from .line import Line, StatedLimits, read_limits
from .staff import Staff

__all__ = ["Scheduler", "Step"]

_READ_EVERY = 0.02  # seconds: thousands of answers a second need not all be asked for the same limits


class Step(NamedTuple):
    """What a worker does next: run ``call``, put ``question``, wait until there is something, or (none of them) end.

    Attributes:
        call: the call to run.
        question: what to ask a shared limit; the answer goes to :meth:`Scheduler.answered`.
        wait: whether to call :meth:`Scheduler.wait_for_work` and ask again.
        more_workers: how many further workers are to be started first.
    """

    call: Optional[Call] = None
    question: Optional[Question] = None
    wait: bool = False
    more_workers: int = 0


class Scheduler:
    """Ready, parked and running calls of one pool, and the workers for them.

    Args:
        max_workers: the concurrency cap.
        limits: what may be sent to each (endpoint, model) per minute, None without limits.
        spending: what has been spent of the pool's budget, None without one.
        sharing: makes the limits that are shared with other processes, None without any.

    Attributes:
        endpoint_proven: whether any call has ever succeeded.
    """

    def __init__(
        self,
        max_workers: int,
        limits: Optional[Limits] = None,
        spending: Optional[Spending] = None,
        sharing: Optional[Sharing] = None,
    ) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)  # a waiting worker has to look again
        self._all_ended = threading.Condition(self.lock)
        self.endpoint_proven = False
        self._max_workers = max_workers
        self._limits = limits
        self._spending = spending
        self._sharing = sharing
        if spending is not None:
            spending.forget_in_flight()  # the scheduler is made anew in a forked child
        self._staff = Staff(max_workers)
        self._lines: Dict[LineKey, Line] = {}
        self._ready: OrderedDict[LineKey, Line] = OrderedDict()  # lines with queued calls, next in turn first
        self._parked: List[Tuple[float, int, Call]] = []
        self._running: Set[Call] = set()
        self._counts: Dict[str, int] = {QUEUED: 0, PARKED: 0, RUNNING: 0}
        self._ended: Set[Call] = set()  # without an outcome: it is with the listeners
        self._waits_until = math.inf
        self._tick = itertools.count()

    # -- calls come in ------------------------------------------------------------------------------

    def submit(self, calls: Iterable[Call]) -> int:
        """Queue fresh calls; returns how many workers to start."""
        with self.lock:
            added = 0
            for call in calls:
                if call.state != NEW:  # cancelled before it came here
                    continue
                line = self._line(call.line)
                line.add(call)
                self._ready[call.line] = line
                call.state = QUEUED  # only now: what is queued is in a queue, whatever comes between
                added += 1
            self._counts[QUEUED] += added
            if self._staff.waiting:
                self._changed.notify_all()
                added -= 1
            return self._staff.hire(added)

    def adopt(self, call: Call, now: float) -> None:
        """A call that runs in its caller's own worker: known here so that it can be given up, never queued."""
        with self.lock:
            call.state = QUEUED
            self._counts[QUEUED] += 1
            self._start(call, now)

    def _line(self, key: LineKey) -> Line:
        line = self._lines.get(key)
        if line is None:
            grants = None if self._sharing is None else Grants(self._sharing.limit(*key))
            line = self._lines[key] = Line(key, self._limits, self._spending, grants)
        return line

    # -- workers ask ----------------------------------------------------------------------------------

    def worker_started(self) -> None:
        """The asking thread is a worker from now on, until a step tells it to end."""
        with self.lock:
            self._staff.started()

    def worker_ended(self) -> None:
        """A worker ends out of turn."""
        with self.lock:
            self._staff.ended()

    def worker_not_started(self) -> int:
        """A worker could not be started; returns how many there are."""
        with self.lock:
            return self._staff.not_started()

    def next_step(self, now: float) -> Step:
        """What the asking worker does next."""
        with self.lock:
            self._wake_parked(now)
            line, wait = self._next_line(now)
            if line is not None:
                question = line.question(now)
                if question is not None:
                    return Step(question=question, more_workers=self._successors(now))
                call = line.first()
                self._start(call, now)
                self._after_turn(line)
                return Step(call=call, more_workers=self._successors(now))
            if self._needs_waiter(now, wait):
                self._staff.waiting = True
                return Step(wait=True)
            self._staff.ended()
            return Step()

    def answered(self, question: Question, slot: Slot, now: float) -> None:
        """A shared limit has answered the worker's question."""
        with self.lock:
            question.grants.answered(slot, now)

    def close_grants(self) -> None:
        """Let go of the files and connections of shared limits; not under the lock."""
        for line in list(self._lines.values()):
            line.close_grants()

    def question_for(self, call: Call) -> Optional[Question]:
        """What a running call that was in no queue has to ask a shared limit, None if nothing."""
        with self.lock:
            return self._line(call.line).question_for(call)

    def paused_for(self, call: Call, now: float) -> float:
        """Seconds for which the call's line is paused after a refusal."""
        with self.lock:
            return self._line(call.line).pacer.pace(now).paused_for or 0.0

    def _needs_waiter(self, now: float, wait: float) -> bool:
        """Whether a worker is to wait so long; one that already does, for longer, is told to look again."""
        if math.isinf(wait):
            return False
        if self._staff.waiting and now + wait < self._waits_until:
            self._changed.notify_all()
        return not self._staff.waiting

    def _next_line(self, now: float) -> Tuple[Optional[Line], float]:
        """The line whose turn it is, or None and the seconds until that may change."""
        first = max(0.0, self._parked[0][0] - now) if self._parked else math.inf
        empty = []
        for line in self._ready.values():
            if not line.has_calls():
                empty.append(line.key)
                continue
            wait = line.wait(now)
            if wait <= 0:
                return line, 0.0
            first = min(first, wait)
        for key in empty:
            del self._ready[key]
        return None, first

    def _after_turn(self, line: Line) -> None:
        if not line.has_calls():
            del self._ready[line.key]
        elif len(self._ready) > 1:
            self._ready.move_to_end(line.key)

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
        parked = self._parked
        while parked and (parked[0][0] <= now or parked[0][2].state == DONE):
            call = heapq.heappop(parked)[2]
            if call.state == PARKED:
                line = self._line(call.line)
                line.parked -= 1
                line.add_due(call, now)
                self._ready[call.line] = line
                self._move(call, QUEUED)

    def _start(self, call: Call, now: float) -> None:
        self._running.add(call)
        self._move(call, RUNNING)
        if call.token is None:
            call.token = CancelToken()
        self._send(call, now)

    def _send(self, call: Call, now: float) -> None:
        self._line(call.line).sent(call, now)

    def _move(self, call: Call, state: str) -> None:
        counts = self._counts
        counts[call.state] -= 1
        if state != DONE:
            counts[state] += 1
        call.state = state

    # -- attempts return, calls go on or end ----------------------------------------------------------

    def returned(self, call: Call, verdict: Verdict, now: float) -> LineView:
        """An attempt has ended; returns the line as it is now."""
        stated = self._stated(call, verdict, now)
        with self.lock:
            line = self._line(call.line)
            view = line.health.view
            if call.sent_at is None:
                return view(now, line.on_their_way() + 1)
            on_their_way = min(line.on_their_way(), self._max_workers)
            line.returned(call, verdict, stated, now)
            return view(now, on_their_way)

    def _stated(self, call: Call, verdict: Verdict, now: float) -> Optional[StatedLimits]:
        """The limits that an answer states: of all refusals, and of a success every now and then."""
        line = self._lines.get(call.line)
        if line is None or (verdict.kind == "success" and now < line.read_again_at):
            return None
        line.read_again_at = now + _READ_EVERY
        return read_limits(verdict)

    def succeed(self, call: Call, verdict: Verdict, now: float) -> Tuple[bool, int]:
        """``returned`` and ``end`` in one, for the commonest case.

        Returns:
            Whether the call had not ended before, and how many workers to start because its line was held.
        """
        stated = self._stated(call, verdict, now)
        with self.lock:
            self.endpoint_proven = True
            workers = 0
            if call.sent_at is not None:
                line = self._line(call.line)
                held = line.health.gate.closed
                line.returned(call, verdict, stated, now)
                if held and not line.health.gate.closed:
                    workers = self._staff.hire(len(line.queued()))
            return self._end(call), workers

    def resend(self, call: Call, now: float) -> None:
        """A running call makes another attempt in the same worker."""
        with self.lock:
            self._send(call, now)

    def park(self, call: Call, due: float) -> None:
        """Set a running call aside until ``due``, unless it has been given up meanwhile."""
        with self.lock:
            if call.state != RUNNING:
                return
            self._running.discard(call)
            self._move(call, PARKED)
            self._line(call.line).parked += 1
            heapq.heappush(self._parked, (due, next(self._tick), call))
            if self._staff.waiting and self._parked[0][2] is call:
                self._changed.notify_all()

    def end(self, call: Call) -> bool:
        """The call has its outcome; False if it had ended before (then this outcome is not delivered)."""
        with self.lock:
            return self._end(call)

    def _end(self, call: Call) -> bool:
        if call.state == DONE:
            return False
        self._running.discard(call)
        self._ended.add(call)
        call.ended_by = threading.get_ident()
        if call.state == NEW:
            call.state = DONE
            return True
        if call.state == PARKED:
            self._line(call.line).parked -= 1
        self._move(call, DONE)
        if not any(self._counts.values()):
            self._all_ended.notify_all()
        return True

    def delivered(self, call: Call) -> None:
        """Its outcome is where it belongs."""
        self._ended.discard(call)

    def undelivered(self, sink: Sink) -> List[Call]:
        """The calls of ``sink`` that have ended and whose outcomes it has not got yet."""
        return [call for call in list(self._ended) if call.sink is sink]

    def in_flight(self, sink: Sink) -> List[Call]:
        """The running calls of ``sink``; without the lock, for the garbage collector."""
        return [call for call in list(self._running) if call.sink is sink]

    def workers_wanted(self, now: float) -> int:
        """How many workers to start, because the asking one will be busy with somebody's callback."""
        with self.lock:
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
                self._parked = [entry for entry in self._parked if entry[2].state == PARKED]
                heapq.heapify(self._parked)
                self._changed.notify_all()
            return given_up

    def _everyone(self, in_flight: bool) -> List[Call]:
        found = [call for line in self._lines.values() for call in line.queued()]
        found += [call for _, _, call in self._parked if call.state == PARKED]
        if in_flight:
            found += self._running
        return found

    def holds_up(self, call: Call) -> bool:
        """Whether it may take long until a worker gets to the call: all are busy, or its line is held."""
        with self.lock:
            return not self._staff.room() or self._line(call.line).may_hold_up()

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
            while any(self._counts.values()):
                clock.wait(self._all_ended)

    def idle(self) -> bool:
        """Whether every call has its outcome."""
        with self.lock:
            return not any(self._counts.values())

    def health(self, key: LineKey) -> LineHealth:
        """The health of a line: written under the lock only, single facts of it may be read without."""
        line = self._lines.get(key)
        return LineHealth() if line is None else line.health

    def held(self, call: Call, now: float) -> float:
        """Seconds for which the call's line has been held since its first send."""
        with self.lock:
            return self._line(call.line).held(now) - call.held_before

    def refuse(self, key: LineKey, until: float, error: ChatPoolError) -> None:
        """Send nothing to this line before ``until``."""
        with self.lock:
            self._line(key).health.refuse(until, error)

    def line_stats(self, now: float) -> Dict[LineKey, LineStats]:
        """All lines, for a person."""
        with self.lock:
            return {key: line.stats(now) for key, line in self._lines.items()}

    def counts(self) -> Tuple[int, int, int]:
        """How many calls are queued, parked and running."""
        with self.lock:
            counts = self._counts
            return counts[QUEUED], counts[PARKED], counts[RUNNING]

    def everyone(self) -> List[Call]:
        """All calls without an outcome, for a forked child: the lock may be held by a thread that is not there."""
        return list({*self._everyone(in_flight=True), *self._ended})

    def repair(self) -> int:
        """Put the books in order after an exception that may have come in the middle of anything (Ctrl-C).

        Returns:
            How many workers to start.
        """
        with self.lock:
            for line in self._lines.values():
                if line.has_calls():
                    self._ready[line.key] = line
            queued = sum(len(line.queued()) for line in self._lines.values())
            parked = sum(call.state == PARKED for _, _, call in self._parked)
            self._counts.update({QUEUED: queued, PARKED: parked, RUNNING: len(self._running)})
            self._staff.forget_starting()
            self._changed.notify_all()
            return self._staff.hire(queued + bool(parked))
