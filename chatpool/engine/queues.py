"""The calls to one model that wait for a line."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Deque, Dict, List, Optional, Tuple

from ..policy.health import LineView
from .call import QUEUED, Call
from .visits import Visits

if TYPE_CHECKING:
    from .line import Line

__all__ = ["CallQueue"]

_NOWHERE = Visits()


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

    def in_order(self, line: Line) -> Tuple[Deque[Call], Deque[Call]]:
        # A probe of a server that is down may well be lost: it costs least where least was tried.
        return (self.fresh, self.due) if line.health.gate.closed else (self.due, self.fresh)


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
        self.lines: List[Line] = []
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

    def first(self, line: Line, now: float) -> Optional[Call]:
        """The call that ``line`` sends next, None if it may send none of those that there are."""
        if len(self.lines) == 1:  # asked for several times for each call, however many runs take turns
            first, then = next(iter(self._levels[self.level].values())).in_order(line)
            return (first or then)[0]
        waiting = (call for turn in self._turns() for queue in turn.in_order(line) for call in queue)
        return next((call for call in waiting if self._may_take(line, call, now)), None)

    def _turns(self) -> List[_Turn]:
        return list(self._levels.get(self.level, {}).values())

    def _may_take(self, line: Line, call: Call, now: float) -> bool:
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
        gone = all(line.on_their_way() == 0 and not line.health.gate.closed for line in self.lines)
        return gone and not self.levels()

    def next_line(self, now: float) -> Tuple[Optional[Line], float]:
        """The line that sends next, or None and the seconds until one may (``inf``: nobody knows); it has calls."""
        if len(self.lines) > 1:
            return self._choose(now)
        line = self.lines[0]
        wait = line.wait(now)
        return (line, 0.0) if wait <= 0 else (None, wait)

    def _choose(self, now: float) -> Tuple[Optional[Line], float]:
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
            told = next((line for line in self.lines if line.health.refusal_at(now) is not None), None)
            return told, min(waits)
        return None, min(waits)

    def _wait_of(self, line: Line, now: float) -> float:
        wait = line.standing.left_alone(now)
        if wait > 0:
            return wait
        if self.first(line, now) is None:
            return self._next_turn(line, now)
        return line.wait(now)

    def _next_turn(self, line: Line, now: float) -> float:
        """Seconds until one of the calls may go to ``line``: all have failed there a moment ago."""
        due = (call for turn in self._turns() for call in turn.due)
        turns = [call.visits.until(line.key) for call in due if call.state == QUEUED and call.visits is not None]
        return max(0.0, min(turns, default=math.inf) - now)

    def _usual_latency(self) -> float:
        """What to expect of a line that has not answered yet: it is to be tried, and not by all calls at once."""
        return min((line.standing.latency for line in self.lines if line.standing.latency), default=1.0)

    def line_for(self, call: Call, now: float) -> Line:
        """The line for a call that is in no queue and cannot wait for its turn."""
        if len(self.lines) == 1:
            return self.lines[0]
        visits, usual = call.visits or _NOWHERE, self._usual_latency()
        return min(
            self.lines,
            key=lambda line: (
                line.standing.on_trial or not visits.may_go(line.key, now),
                line.held_for(now),
                line.standing.expected(usual, now),
            ),
        )

    def may_hold_up(self) -> bool:
        """Whether a call may have to wait for long before it is sent."""
        return any(line.may_hold_up() for line in self.lines)

    def view(self, call: Call, line: Line, view: LineView, now: float) -> LineView:
        """``line`` as a retry decision sees it, with what the others could do for the call."""
        if len(self.lines) == 1:
            return view
        visits = call.visits or _NOWHERE
        others = [other for other in self.lines if other is not line and other.standing.reason_against(now) is None]
        left = [other for other in others if other.key not in visits.refusals]
        free = [other for other in left if not other.health.gate.closed and visits.may_go(other.key, now)]
        views = [other.health.view(now, 1) for other in others] + [view]
        return view._replace(
            elsewhere=bool(free),
            left=bool(left),
            down_for=_least([each.down_for for each in views]),
            refused_for=_least([each.refused_for for each in views]),
            proven=any(each.proven for each in views),
        )


def _least(seconds: List[Optional[float]]) -> Optional[float]:
    """How long all have been so; None if one is not."""
    known = [each for each in seconds if each is not None]
    return min(known) if len(known) == len(seconds) else None
