"""The lines of a pool, and whose turn it is."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from .call import Call, LineKey
from .line import Line

__all__ = ["Lines"]


class Lines:
    """One line for each (endpoint, model), made when it is first needed; those with calls take turns.

    Not thread-safe: the scheduler holds its lock, but for :meth:`known`.

    Args:
        make: makes a line.
    """

    __slots__ = ("_all", "_make", "_ready")

    def __init__(self, make: Callable[[LineKey], Line]) -> None:
        self._make = make
        self._all: Dict[LineKey, Line] = {}
        self._ready: OrderedDict[LineKey, Line] = OrderedDict()  # lines with queued calls, next in turn first

    def __iter__(self) -> Iterator[Line]:
        return iter(list(self._all.values()))

    def of(self, call: Call) -> Line:
        """The line of a call."""
        line = self._all.get(call.line)
        return self.get(call.line) if line is None else line

    def get(self, key: LineKey) -> Line:
        """The line of an endpoint and a model."""
        line = self._all.get(key)
        if line is None:
            line = self._all[key] = self._make(key)
        return line

    def known(self, key: LineKey) -> Optional[Line]:
        """The same, None if it has never been needed; works without the lock."""
        return self._all.get(key)

    def add(self, call: Call) -> None:
        """Queue a fresh call."""
        line = self.of(call)
        line.add(call)
        self._ready[call.line] = line

    def add_due(self, call: Call, now: float) -> None:
        """Queue a call whose wait is over."""
        line = self.of(call)
        line.parked -= 1
        line.add_due(call, now)
        self._ready[call.line] = line

    def next(self, now: float) -> Tuple[Optional[Line], float]:
        """The line whose turn it is, or None and the seconds until one may send (``inf``: nobody knows)."""
        first = math.inf
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

    def had_its_turn(self, line: Line) -> None:
        """The others go first now."""
        if not line.has_calls():
            del self._ready[line.key]
        elif len(self._ready) > 1:
            self._ready.move_to_end(line.key)

    def queued(self) -> List[Call]:
        """All calls that are queued."""
        return [call for line in self._all.values() for call in line.queued()]

    def look_again(self) -> None:
        """Find out anew which lines have calls."""
        for line in self._all.values():
            if line.has_calls():
                self._ready[line.key] = line
