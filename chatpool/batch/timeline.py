"""When things happened in a run: attempts and outcomes over its working time."""

from __future__ import annotations

from array import array
from typing import Iterable, List, NamedTuple

from ..journal import OK, Record

__all__ = ["Timeline", "Timelines"]

_PAUSE = 60.0  # seconds in which nothing happens: nobody was running it
_SLOTS = 120  # in which a run's time is shown


class Timelines(NamedTuple):
    """A run's time in equal slots.

    Attributes:
        width: seconds of one slot.
        answered, failed: rows that ended in each slot.
        refused: attempts in each slot that the server refused or failed, and that were made again.
        in_flight: the mean number of attempts under way in each slot.
    """

    width: float
    answered: List[int]
    failed: List[int]
    refused: List[int]
    in_flight: List[float]


class Timeline:
    """Takes records in the order in which they ended; pauses between runs are left out.

    A record takes 40 bytes.
    """

    def __init__(self) -> None:
        self._starts, self._ends = array("d"), array("d")  # of attempts
        self._refused = array("b")
        self._outcomes, self._succeeded = array("d"), array("b")
        self._left_out = 0.0
        self._latest = 0.0
        self.seconds = 0.0
        self._first = 0.0

    def add(self, record: Record) -> None:
        """One row has ended."""
        start = record.at - record.elapsed
        if not self._outcomes:
            self._first = self._latest = start
        elif start - self._latest > _PAUSE:
            self._left_out += start - self._latest
        self._latest = max(self._latest, record.at)
        moment = start - self._first - self._left_out
        self._outcomes.append(moment + record.elapsed)
        self._succeeded.append(record.state == OK)
        self.seconds = max(self.seconds, moment + record.elapsed)
        for attempt in record.attempts:
            self._starts.append(moment)
            self._ends.append(moment + attempt.elapsed)
            self._refused.append(attempt.wait is not None)
            moment += attempt.elapsed + (attempt.wait or 0.0)

    def slots(self) -> Timelines:
        """The run in equal slots."""
        width = max(self.seconds / _SLOTS, 1e-3)
        count = min(_SLOTS, int(self.seconds / width) + 1)

        def slot(moment: float) -> int:
            return min(max(int(moment / width), 0), count - 1)

        answered, failed, refused = [0] * count, [0] * count, [0] * count
        for moment, ok in zip(self._outcomes, self._succeeded):
            (answered if ok else failed)[slot(moment)] += 1
        for end, again in zip(self._ends, self._refused):
            refused[slot(end)] += again
        return Timelines(width, answered, failed, refused, self._in_flight(width, count))

    def _in_flight(self, width: float, count: int) -> List[float]:
        busy = [0.0] * count
        for start, end in zip(self._starts, self._ends):
            for slot in _touched(start, end, width, count):
                busy[slot] += max(0.0, min(end, (slot + 1) * width) - max(start, slot * width))
        return [seconds / width for seconds in busy]


def _touched(start: float, end: float, width: float, count: int) -> Iterable[int]:
    return range(max(0, int(start / width)), min(count, int(end / width) + 1))
