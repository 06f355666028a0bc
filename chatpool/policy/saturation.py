"""A server that refuses nothing and only gets slower: fewer calls in flight, as long as it answers as many a second."""

from __future__ import annotations

import math

__all__ = ["Saturation"]

_FEW = 8  # calls in flight with which a server is as fast as it can be
_FAST_IN_MEAN = 20
_MANY = 16  # with fewer there is nothing to gain

_SLOWER = 3.0  # times the first answers: then it may be that calls only queue up
_ANSWERS = 50  # in a period, for its numbers to mean something
_SECONDS = 1.0  # a period at least ...
_ROUNDS = 6  # ... and so many times as long as an answer takes, for answers may come in bursts

_FEWER = 0.75  # of the calls in flight, for a trial ...
_NO_LOSS = 0.97  # ... that is kept if so large a share of the answers a second remains
_MORE = 1.25  # of the limit, for a trial in the other direction ...
_GAIN = 1.05  # ... that is kept if it brings so many more answers
_REST = 30.0  # seconds to the next trial after one that was not kept, and to one of more calls after any


class Saturation:
    """Tries fewer calls in flight when answers have become slow, and keeps what costs no throughput.

    Attributes:
        limit: calls in flight at most, ``inf`` while nothing speaks for fewer.
    """

    __slots__ = (
        "_answers",
        "_before",
        "_factor",
        "_fast",
        "_first_answers",
        "_from",
        "_rest_until",
        "_settles_at",
        "_took",
        "limit",
    )

    def __init__(self) -> None:
        self.limit = math.inf
        self._fast = 0.0  # mean seconds of answers to calls that were sent with few others in flight
        self._first_answers = 0  # how many there were
        self._answers = 0
        self._took = 0.0
        self._from = -math.inf  # when the period began
        self._settles_at = -math.inf  # a changed limit shows only in what was sent after it
        self._rest_until = -math.inf
        self._before = 0.0  # answers a second before the trial under way ...
        self._factor = 1.0  # ... which multiplied the limit by this; 1 for none

    def answered(self, ahead: int, took: float, now: float) -> None:
        """A call that was sent with so many others in flight was answered after ``took`` seconds."""
        if ahead < _FEW:
            self._first_answers += 1
            self._fast += (took - self._fast) / min(_FAST_IN_MEAN, self._first_answers)
        # The first of the first answers are the shortest: wait for all of them.
        if now - took < self._settles_at or self._first_answers < _FEW:
            return
        if self._answers == 0:
            self._from = now
        self._answers += 1
        self._took += took
        mean = self._took / self._answers
        if self._answers > _ANSWERS and now - self._from >= max(_SECONDS, _ROUNDS * mean):
            self._period_ends(self._answers / (now - self._from), mean, now)
            self._answers, self._took = 0, 0.0

    def _period_ends(self, rate: float, took: float, now: float) -> None:
        if self._factor != 1.0:
            self._judge(rate, now)
        in_flight = rate * took  # Little's law
        if now < self._rest_until or self._factor != 1.0:
            return
        if took > _SLOWER * self._fast and in_flight >= _MANY:
            self._try(_FEWER, max(1.0, min(self.limit, in_flight)), rate, now)
        elif not math.isinf(self.limit) and now >= self._settles_at + _REST:
            self._try(_MORE, self.limit, rate, now)

    def _try(self, factor: float, current: float, rate: float, now: float) -> None:
        self._before, self._factor = rate, factor
        self.limit = math.ceil(current * factor)
        self._settles_at = now

    def _judge(self, rate: float, now: float) -> None:
        kept = rate >= (_NO_LOSS if self._factor < 1 else _GAIN) * self._before
        if not kept:
            self.limit = math.ceil(self.limit / self._factor)
            self._settles_at = now
            self._rest_until = now + _REST
        self._factor = 1.0
