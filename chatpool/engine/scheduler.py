"""Which call runs next.

One lock guards the queues.  Every method here decides and returns what is to be done; starting threads,
waiting, delivering and sending happen outside, in :mod:`chatpool.engine.executor`.

Workers come and go: one that finds no call to run ends, except that a single one stays to wait for the
first parked call.  So a pool in which nothing is parked has no thread that wakes up.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from typing import Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from ..clock import Clock
from ..errors import APIError
from ..policy.health import LineHealth
from ..transport import CancelToken
from ..types import LineStats, Verdict
from .call import DONE, PARKED, QUEUED, RUNNING, Call, LineKey

__all__ = ["Scheduler", "Step"]


class Step(NamedTuple):
    """What a worker does next: run ``call``, or (``wait``) wait for the first parked call, or (neither) end.

    Attributes:
        call: the call to run.
        wait: whether to call :meth:`Scheduler.wait_for_parked` and ask again.
        more_workers: how many further workers are to be started first.
    """

    call: Optional[Call] = None
    wait: bool = False
    more_workers: int = 0


class Scheduler:
    """Ready, parked and running calls of one pool.

    Methods take the lock themselves; ``changed`` (on the same lock) is notified when a waiting worker has to
    look again, ``idle`` when the last call has ended.
    """

    def __init__(self, max_workers: int) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.idle = threading.Condition(self.lock)
        self._max_workers = max_workers
        self._due: Deque[Call] = deque()  # parked before, ready now: they go first
        self._fresh: Deque[Call] = deque()
        self._parked: List[Tuple[float, int, Call]] = []
        self._running: Set[Call] = set()
        self._counts: Dict[str, int] = {QUEUED: 0, PARKED: 0, RUNNING: 0}
        self._workers = 0
        self._waiting = False  # whether a worker waits for the first parked call
        self._tick = itertools.count()
        self._health: Dict[LineKey, LineHealth] = {}

    # -- calls come in ------------------------------------------------------------------------------

    def submit(self, calls: Iterable[Call]) -> int:
        """Queue fresh calls; returns how many workers to start."""
        with self.lock:
            before = len(self._fresh)
            self._fresh.extend(calls)
            added = len(self._fresh) - before
            self._counts[QUEUED] += added
            if self._waiting:
                self.changed.notify_all()
                added -= 1
            return self._hire(added)

    def _hire(self, wanted: int) -> int:
        hired = max(0, min(wanted, self._max_workers - self._workers))
        self._workers += hired
        return hired

    # -- workers ask ----------------------------------------------------------------------------------

    def next_step(self, now: float) -> Step:
        """What the asking worker does next."""
        with self.lock:
            return self._next_step(now)

    def _next_step(self, now: float) -> Step:
        self._wake_parked(now)
        call = self._pop()
        if call is not None:
            self._start(call)
            # Whoever leaves the queue makes sure that the rest of it is looked after.
            rest = self._counts[QUEUED] > 0 or (bool(self._parked) and not self._waiting)
            return Step(call=call, more_workers=self._hire(1) if rest else 0)
        if self._parked and not self._waiting:
            self._waiting = True
            return Step(wait=True)
        self._workers -= 1
        return Step()

    def wait_for_parked(self, clock: Clock) -> None:
        """Wait until the first parked call is due, or until there is something else to look at."""
        with self.lock:
            if self._parked and not self._counts[QUEUED]:
                clock.wait(self.changed, max(0.0, self._parked[0][0] - clock.now()))
            self._waiting = False

    def wait_inline(self, call: Call, due: float, clock: Clock) -> None:
        """Wait until ``due``, or until the call is given up."""
        with self.lock:
            while call.state == RUNNING and clock.now() < due:
                clock.wait(self.changed, due - clock.now())

    def wait_until_idle(self, clock: Clock) -> None:
        """Wait until every call has its outcome."""
        with self.lock:
            while any(self._counts.values()):
                clock.wait(self.idle)

    def worker_lost(self) -> int:
        """A worker could not be started; returns how many there are without it."""
        with self.lock:
            self._workers -= 1
            return self._workers

    def _wake_parked(self, now: float) -> None:
        parked = self._parked
        while parked and (parked[0][0] <= now or parked[0][2].state == DONE):
            call = heapq.heappop(parked)[2]
            if call.state == PARKED:
                self._move(call, QUEUED)
                self._due.append(call)

    def _pop(self) -> Optional[Call]:
        for queue in (self._due, self._fresh):
            while queue:
                call = queue.popleft()
                if call.state == QUEUED:  # else it was cancelled in the queue
                    return call
        return None

    def _start(self, call: Call) -> None:
        self._move(call, RUNNING)
        self._running.add(call)
        if call.token is None:
            call.token = CancelToken()

    def _move(self, call: Call, state: str) -> None:
        counts = self._counts
        counts[call.state] -= 1
        if state != DONE:
            counts[state] += 1
        call.state = state

    # -- calls go on, or end ----------------------------------------------------------------------------

    def observe(self, call: Call, verdict: Verdict) -> int:
        """Take an attempt's verdict into account; returns the failure streak of the call's line."""
        with self.lock:
            health = self._line(call.line)
            health.observe(verdict)
            return health.streak

    def park(self, call: Call, due: float) -> bool:
        """Set a running call aside until ``due``; False if it has been given up meanwhile."""
        with self.lock:
            if call.state != RUNNING:
                return False
            self._running.discard(call)
            self._move(call, PARKED)
            heapq.heappush(self._parked, (due, next(self._tick), call))
            if self._waiting and self._parked[0][2] is call:
                self.changed.notify_all()
            return True

    def end(self, call: Call) -> bool:
        """The call has its outcome; False if it had ended before (then this outcome is not delivered)."""
        with self.lock:
            return self._end(call)

    def succeed(self, call: Call, verdict: Verdict) -> bool:
        """``observe`` and ``end`` in one, for the commonest case."""
        with self.lock:
            self._line(call.line).observe(verdict)
            return self._end(call)

    def _end(self, call: Call) -> bool:
        if call.state == DONE:
            return False
        self._running.discard(call)
        self._move(call, DONE)
        if not any(self._counts.values()):
            self.idle.notify_all()
        return True

    def adopt(self, call: Call) -> None:
        """A call that runs in its caller's own worker: known here so that it can be given up, never queued."""
        with self.lock:
            self._counts[QUEUED] += 1
            self._start(call)

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
                self._sweep()
                self.changed.notify_all()
            return given_up

    def _everyone(self, in_flight: bool) -> List[Call]:
        found = [call for queue in (self._due, self._fresh) for call in queue if call.state == QUEUED]
        found += [call for _, _, call in self._parked if call.state == PARKED]
        if in_flight:
            found += self._running
        return found

    def _sweep(self) -> None:
        self._due = deque(call for call in self._due if call.state == QUEUED)
        self._fresh = deque(call for call in self._fresh if call.state == QUEUED)
        self._parked = [entry for entry in self._parked if entry[2].state == PARKED]
        heapq.heapify(self._parked)

    def cancel(self, call: Call) -> bool:
        """End one call without an outcome; it leaves its queue when its turn comes."""
        with self.lock:
            if not self._end(call):
                return False
            if self._waiting and self._parked and self._parked[0][2] is call:
                self.changed.notify_all()
            return True

    # -- lines ------------------------------------------------------------------------------------------

    def _line(self, key: LineKey) -> LineHealth:
        health = self._health.get(key)
        if health is None:
            health = self._health[key] = LineHealth()
        return health

    def line(self, key: LineKey) -> LineHealth:
        """The health of a line: to be written under ``lock``, its single facts may be read without."""
        return self._health.get(key) or LineHealth()

    def refuse(self, key: LineKey, until: float, error: APIError) -> None:
        """Send nothing to this line before ``until``."""
        with self.lock:
            self._line(key).refuse(until, error)

    def line_stats(self, now: float) -> Dict[LineKey, LineStats]:
        """All lines, for a person."""
        with self.lock:
            return {key: health.stats(now) for key, health in self._health.items()}

    def counts(self) -> Tuple[int, int, int]:
        """How many calls are queued, parked and running."""
        with self.lock:
            counts = self._counts
            return counts[QUEUED], counts[PARKED], counts[RUNNING]
