"""The times of a run, read from the records of its journal: which exchanges there were, and when."""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict, deque
from typing import Deque, Dict, Iterable, List, NamedTuple, Sequence, Set, Tuple

from .._journal import OK, Record
from ..types import Attempt

__all__ = ["Exchanges", "Histogram", "OwnAttempts", "Timeline"]

_PAUSE_SECONDS = 60.0  # without any event: the run was not under way
_TIME_BINS = 120  # of a timeline, at most
_MIN_BIN_SECONDS = 1.0
_SHARED_SECONDS = 0.5  # between the records of two rows of one request, at most
_REMEMBERED_REQUESTS = 256  # more than end within that time, as a rule


class OwnAttempts(NamedTuple):
    """Attempts of a record that no record before has counted.

    Attributes:
        attempts: those between the first send of the call and its end.
        seconds: the time between these.
        earlier: those of larger requests that the row was in before, and that no row has ended with.
    """

    attempts: Sequence[Attempt]
    seconds: float
    earlier: Sequence[Attempt] = ()


class Exchanges:
    """Finds the exchanges with the server in records of rows, and counts each once.

    Rows that went out in one request share its attempts, and the record of a row that ``pool.retry`` has sent again
    begins with those of the record before.
    """

    def __init__(self) -> None:
        self._failed: Dict[int, Tuple[Attempt, ...]] = {}  # by the row's key
        self._earlier: Set[Tuple[Attempt, ...]] = set()
        self._requests: OrderedDict[object, float] = OrderedDict()  # with the time of their last record

    def of(self, record: Record) -> OwnAttempts:
        """Return the attempts that a record adds; records come in the order in which the rows ended."""
        earlier, attempts = _split(record.attempts)
        before = self._failed.pop(record.key, ())
        if record.state != OK:
            self._failed[record.key] = record.attempts
        # The time of a record that begins with attempts of another call may be that of both.
        seconds = min(record.elapsed, _seconds(attempts)) if earlier else record.elapsed
        if earlier in (before, ()) or earlier in self._earlier:
            earlier = ()
        else:
            self._earlier.add(earlier)
        is_shared = bool(attempts) and seconds > 0 and self._is_known((attempts, record.elapsed), record.at)
        return OwnAttempts((), 0.0, earlier) if is_shared else OwnAttempts(attempts, seconds, earlier)

    def _is_known(self, request: object, at: float) -> bool:
        """Return whether the record before, or one shortly before, is of the same request."""
        last_at = self._requests.pop(request, -math.inf)
        self._requests[request] = at
        if len(self._requests) > _REMEMBERED_REQUESTS:
            self._requests.popitem(last=False)
        return at - last_at < _SHARED_SECONDS


def _split(attempts: Tuple[Attempt, ...]) -> Tuple[Tuple[Attempt, ...], Tuple[Attempt, ...]]:
    """Return attempts of calls before, each of which ends with one that no other followed, and those of the last."""
    ends = [place for place, attempt in enumerate(attempts[:-1], 1) if attempt.wait is None]
    start = ends[-1] if ends else 0
    return attempts[:start], attempts[start:]


def _seconds(attempts: Iterable[Attempt]) -> float:
    return sum(attempt.elapsed + (attempt.wait or 0.0) for attempt in attempts)


class Histogram(NamedTuple):
    """Events of a run in bins of equal length.

    Attributes:
        width: seconds of one bin.
        answered, failed: rows that ended in each bin.
        refused: attempts in each bin that the server refused or failed, and that were made again.
        in_flight: the mean number of attempts in flight in each bin.
    """

    width: float
    answered: List[int]
    failed: List[int]
    refused: List[int]
    in_flight: List[float]


class Timeline:
    """The times of attempts and outcomes, without the pauses between runs.

    A record takes 40 bytes.

    Args:
        run_starts: when runs began to send, in seconds since the epoch, first to last. Journals of version 0.1.0 do
            not tell: there a minute without any event is a pause.
    """

    def __init__(self, run_starts: Sequence[float] = ()) -> None:
        self._run_starts: Deque[float] = deque(run_starts)
        self._starts, self._ends = array("d"), array("d")  # of attempts
        self._refused = array("b")
        self._outcomes, self._succeeded = array("d"), array("b")
        self._paused_seconds = 0.0
        self._latest = -math.inf  # of the epoch
        self._first, self._last = math.inf, -math.inf  # of the epoch, less the pauses

    @property
    def seconds(self) -> float:
        """The working time so far."""
        return max(self._last - self._first, 0.0)

    def add(self, record: Record, own: OwnAttempts) -> None:
        """Add the record of a row, and its attempts; records come in the order in which the rows ended."""
        start = record.at - own.seconds
        self._leave_out_pause(start, record.at)
        moment = start - self._paused_seconds
        self._outcomes.append(moment + own.seconds)
        self._succeeded.append(record.state == OK)
        self._first, self._last = min(self._first, moment), max(self._last, moment + own.seconds)
        self._add_attempts(own, moment)

    def _leave_out_pause(self, start: float, end: float) -> None:
        while self._run_starts and self._run_starts[0] <= end:
            run_start = self._run_starts.popleft()
            if run_start > self._latest > -math.inf:
                self._paused_seconds += run_start - self._latest
                self._latest = run_start
        if start - self._latest > _PAUSE_SECONDS and self._latest > -math.inf:
            self._paused_seconds += start - self._latest
        self._latest = max(self._latest, end)

    def _add_attempts(self, own: OwnAttempts, moment: float) -> None:
        # The first begins with the row and the last ends with it.  In journals of version 0.1.0 a wait is the one that
        # was decided on, and took longer where no worker was free at its end.
        attempts = own.attempts
        longer = max(0.0, own.seconds - _seconds(attempts)) / max(1, len(attempts) - 1)
        for attempt in attempts:
            self._starts.append(moment)
            self._ends.append(moment + attempt.elapsed)
            self._refused.append(attempt.wait is not None)
            moment += attempt.elapsed + (attempt.wait or 0.0) + longer

    def histogram(self) -> Histogram:
        """Return the events in bins of equal length, a second at least."""
        seconds = self.seconds
        count = max(1, min(_TIME_BINS, int(seconds / _MIN_BIN_SECONDS)))
        width = max(seconds / count, _MIN_BIN_SECONDS)

        def bin_of(moment: float) -> int:
            return min(max(int((moment - self._first) / width), 0), count - 1)

        answered, failed, refused = [0] * count, [0] * count, [0] * count
        for moment, ok in zip(self._outcomes, self._succeeded):
            (answered if ok else failed)[bin_of(moment)] += 1
        for end, is_refused in zip(self._ends, self._refused):
            refused[bin_of(end)] += is_refused
        return Histogram(width, answered, failed, refused, self._in_flight(width, count))

    def _in_flight(self, width: float, count: int) -> List[float]:
        busy_seconds = [0.0] * count
        for started, ended in zip(self._starts, self._ends):
            start, end = started - self._first, ended - self._first
            for index in range(max(0, int(start / width)), min(count, int(end / width) + 1)):
                busy_seconds[index] += max(0.0, min(end, (index + 1) * width) - max(start, index * width))
        return [seconds / width for seconds in busy_seconds]
