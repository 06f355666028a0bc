"""The registry of the open calls and their states."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from typing import Dict, Iterator, List, Set, Tuple

from .call import DONE, NEW, PARKED, QUEUED, RUNNING, Call, OutcomeSink

__all__ = ["CallRegistry"]


class CallRegistry:
    """The calls that are parked, running, or ended and not yet delivered, and the number of queued ones.

    Not thread-safe: the scheduler holds its lock, but for the methods that say so.
    """

    __slots__ = ("_counts", "_ended", "_parked", "_running", "_tick")

    def __init__(self) -> None:
        self._counts: Dict[str, int] = {QUEUED: 0, PARKED: 0, RUNNING: 0}
        self._parked: List[Tuple[float, int, Call]] = []
        self._running: Set[Call] = set()
        self._ended: Set[Call] = set()  # the listeners have the outcome, the sink does not yet
        self._tick = itertools.count()

    def queued(self, count: int = 1) -> None:
        """Count fresh calls that are in their queues."""
        self._counts[QUEUED] += count

    def start(self, call: Call) -> None:
        """Mark a queued call as running."""
        self._running.add(call)
        self._move(call, RUNNING)

    def park(self, call: Call, due: float) -> bool:
        """Park a running call until ``due``; return whether no other is due before it."""
        self._running.discard(call)
        self._move(call, PARKED)
        heapq.heappush(self._parked, (due, next(self._tick), call))
        return self._parked[0][2] is call

    def anything_parked(self) -> bool:
        """Return whether any call is parked, or was."""
        return bool(self._parked)

    def due(self, now: float) -> Iterator[Call]:
        """Yield the parked calls whose time has come; they count as queued from now on."""
        parked = self._parked
        while parked and (parked[0][0] <= now or parked[0][2].state == DONE):
            call = heapq.heappop(parked)[2]
            if call.state == PARKED:
                self._move(call, QUEUED)
                yield call

    def next_due(self, now: float) -> float:
        """Return the seconds until a parked call is due, ``inf`` if there is none."""
        return max(0.0, self._parked[0][0] - now) if self._parked else math.inf

    def end(self, call: Call) -> None:
        """Mark a call as ended; its outcome is still to be delivered."""
        self._running.discard(call)
        self._ended.add(call)
        call.ended_by = threading.get_ident()
        if call.state == NEW:
            call.state = DONE
        else:
            self._move(call, DONE)

    def forget_ended(self) -> None:
        """Remove calls that have ended from the parked ones."""
        self._parked = [entry for entry in self._parked if entry[2].state == PARKED]
        heapq.heapify(self._parked)

    def _move(self, call: Call, state: str) -> None:
        counts = self._counts
        counts[call.state] -= 1
        if state != DONE:
            counts[state] += 1
        call.state = state

    def idle(self) -> bool:
        """Return whether no call is queued, parked or running."""
        return not any(self._counts.values())

    def counts(self) -> Tuple[int, int, int]:
        """Return the numbers of queued, parked and running calls."""
        counts = self._counts
        return counts[QUEUED], counts[PARKED], counts[RUNNING]

    def parked(self) -> List[Call]:
        """Return the parked calls."""
        return [call for _, call in self.parked_until()]

    def parked_until(self) -> List[Tuple[float, Call]]:
        """Return the parked calls, each with the time when it is due."""
        return [(due, call) for due, _, call in self._parked if call.state == PARKED]

    def running(self) -> List[Call]:
        """Return the running calls; works without the lock, for the garbage collector."""
        return list(self._running)

    def delivered(self, call: Call) -> None:
        """Note that the sink of an ended call has its outcome; works without the lock."""
        self._ended.discard(call)

    def undelivered(self) -> List[Call]:
        """Return the ended calls whose sinks do not have the outcomes yet; works without the lock."""
        return list(self._ended)

    def undelivered_to(self, sink: OutcomeSink) -> List[Call]:
        """Return those of one sink."""
        return [call for call in list(self._ended) if call.sink is sink]

    def recount(self, queued: int) -> int:
        """Correct the counts after an interruption (Ctrl-C); return the number of parked calls."""
        parked = len(self.parked())
        self._counts.update({QUEUED: queued, PARKED: parked, RUNNING: len(self._running)})
        return parked
