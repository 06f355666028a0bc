"""Ends singular calls whose time runs out while they wait for a worker."""

from __future__ import annotations

import heapq
import threading
import weakref
from typing import Callable, List, Optional, Tuple

from ..clock import Clock
from ..locks import Condition, run_beside
from .call import DONE, Call

__all__ = ["ExpiryWatch"]

_FEW = 64  # entries that are not worth tidying up


class ExpiryWatch:
    """A thread of its own, because every worker may be busy; it exists only while calls are watched.

    Args:
        clock: the pool's clock.
        expire: a bound method that ends the call if it still waits; its object is not kept alive.
    """

    def __init__(self, clock: Clock, expire: Callable[[Call], None]) -> None:
        self._clock = clock
        self._expire = weakref.WeakMethod(expire)
        self._changed = Condition()
        self._watched: List[Tuple[float, int, Call]] = []
        self._tidy_at = _FEW
        self._running = False

    def add(self, call: Call) -> None:
        """Watch a call until its time ends."""
        with self._changed:
            heapq.heappush(self._watched, (call.deadline().at, call.id, call))
            if len(self._watched) > self._tidy_at:
                self._tidy()
            if not self._running:
                watch = threading.Thread(target=self._watch, name="chatpool-expiry", daemon=True)
                run_beside(watch.start)
                self._running = True
            elif self._watched[0][2] is call:
                self._changed.notify_all()

    def close(self) -> None:
        """Watch nothing any more."""
        with self._changed:
            self._watched.clear()
            self._changed.notify_all()

    def _tidy(self) -> None:
        self._watched = [entry for entry in self._watched if entry[2].state != DONE]
        heapq.heapify(self._watched)
        self._tidy_at = max(_FEW, 2 * len(self._watched))

    def _watch(self) -> None:
        while True:
            expired = self._next_expired()
            expire = self._expire()
            if expired is None or expire is None:
                return
            expire(expired)

    def _next_expired(self) -> Optional[Call]:
        """Wait for the end of a watched call's time; None when there is nothing left to watch."""
        with self._changed:
            while True:
                while self._watched and self._watched[0][2].state == DONE:
                    heapq.heappop(self._watched)
                if not self._watched:
                    self._running = False
                    return None
                left = self._watched[0][0] - self._clock.now()
                if left <= 0:
                    return heapq.heappop(self._watched)[2]
                self._clock.wait(self._changed, left)
