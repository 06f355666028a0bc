"""Which calls there are, and in what state."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from typing import Dict, Iterator, List, Set, Tuple

from .call import DONE, NEW, PARKED, QUEUED, RUNNING, Call, OutcomeSink

__all__ = ["CallRegistry"]


class CallRegistry:
    """The calls that are parked, running, or ended and not yet delivered; of the queued ones it knows the number.

    Not thread-safe: the scheduler holds its lock, but for the methods that say so.
    """

    __slots__ = ("_counts", "_ended", "_parked", "_running", "_tick")

    def __init__(self) -> None:
        self._counts: Dict[str, int] = {QUEUED: 0, PARKED: 0, RUNNING: 0}
        self._parked: List[Tuple[float, int, Call]] = []
        self._running: Set[Call] = set()
        self._ended: Set[Call] = set()  # without an outcome: it is with the listeners
        self._tick = itertools.count()

    def queued(self, number: int = 1) -> None:
        """So many fresh calls are in their queues."""
        self._counts[QUEUED] += number

    def start(self, call: Call) -> None:
        """A queued call runs."""
        self._running.add(call)
        self._move(call, RUNNING)

    def park(self, call: Call, due: float) -> bool:
        """A running call waits until ``due``; returns whether no other is due before it."""
        self._running.discard(call)
        self._move(call, PARKED)
        heapq.heappush(self._parked, (due, next(self._tick), call))
        return self._parked[0][2] is call

    def anything_parked(self) -> bool:
        """Whether any call is parked, or was."""
        return bool(self._parked)

    def due(self, now: float) -> Iterator[Call]:
        """The parked calls whose time has come; they are queued from now on."""
        parked = self._parked
        while parked and (parked[0][0] <= now or parked[0][2].state == DONE):
            call = heapq.heappop(parked)[2]
            if call.state == PARKED:
                self._move(call, QUEUED)
                yield call

    def next_due(self, now: float) -> float:
        """Seconds until a parked call is due, ``inf`` if there is none."""
        return max(0.0, self._parked[0][0] - now) if self._parked else math.inf

    def end(self, call: Call) -> None:
        """The call ends; its outcome is still to be delivered."""
        self._running.discard(call)
        self._ended.add(call)
        call.ended_by = threading.get_ident()
        if call.state == NEW:
            call.state = DONE
        else:
            self._move(call, DONE)

    def forget_ended(self) -> None:
        """Take calls that have ended out of the parked ones."""
        self._parked = [entry for entry in self._parked if entry[2].state == PARKED]
        heapq.heapify(self._parked)

    def _move(self, call: Call, state: str) -> None:
        counts = self._counts
        counts[call.state] -= 1
        if state != DONE:
            counts[state] += 1
        call.state = state

    def idle(self) -> bool:
        """Whether no call is queued, parked or running."""
        return not any(self._counts.values())

    def counts(self) -> Tuple[int, int, int]:
        """How many calls are queued, parked and running."""
        counts = self._counts
        return counts[QUEUED], counts[PARKED], counts[RUNNING]

    def parked(self) -> List[Call]:
        """The parked calls."""
        return [call for _, _, call in self._parked if call.state == PARKED]

    def running(self) -> List[Call]:
        """The running calls; works without the lock, for the garbage collector."""
        return list(self._running)

    def delivered(self, call: Call) -> None:
        """The outcome of an ended call is where it belongs; works without the lock."""
        self._ended.discard(call)

    def undelivered(self) -> List[Call]:
        """The calls that have ended and whose outcomes are not where they belong yet; works without the lock."""
        return list(self._ended)

    def undelivered_to(self, sink: OutcomeSink) -> List[Call]:
        """Those of one sink."""
        return [call for call in list(self._ended) if call.sink is sink]

    def recount(self, queued: int) -> int:
        """Put the counts right when something may have come in the middle; returns how many calls are parked."""
        parked = len(self.parked())
        self._counts.update({QUEUED: queued, PARKED: parked, RUNNING: len(self._running)})
        return parked
