"""A server that takes whatever comes and answers so late that calls are given up: fewer in flight.

Whether failures of a server (5xx, broken connections) are rejections, because it has too much to do.
"""

from __future__ import annotations

import math
from typing import Optional

from .random_rejections import LoadTrial
from .send_log import Rejection, SendLog, SendRecord
from .sequential_tests import OVERLIMIT_SHARE, SurgeTest
from .states import LimitState

__all__ = ["Backlog", "Overload"]


_CHANCE_SHARE = 0.25  # of the calls may fail, and it says nothing about the load
_OVERLOAD_LOG_ODDS = 10.0  # logarithm of the odds that most fail

_PROBES_FOR_OUTAGE = 5  # rejected in a row: the server is down ...
_PROBES_FOR_OUTAGE_WITH_CALLS_IN_FLIGHT = 12  # ... or these, while some calls are under way that may yet be answered


class Overload:
    """Takes failures for chance until most calls fail; then they are rejections, and the pace is to be found.

    Many limiters say 503: nginx and haproxy do by default.

    Attributes:
        known: whether failures are rejections.
    """

    __slots__ = ("_answers", "_since", "_test", "detected")

    def __init__(self) -> None:
        self.detected = False
        self._answers = 0  # of calls sent since it is known
        self._since = 0
        self._test = SurgeTest(_CHANCE_SHARE, OVERLIMIT_SHARE, 0)

    @property
    def share(self) -> float:
        """The share of calls that may fail by chance."""
        return _CHANCE_SHARE

    def failed(self, number: int, sent: int) -> bool:
        """The attempt with this number failed, of so many sent; returns whether that is a rejection."""
        if not self.detected:
            self._test.reject(number)
            if self._test.log_odds >= _OVERLOAD_LOG_ODDS:
                self.detected, self._answers, self._since = True, 0, sent
        return self.detected

    def answered(self, number: int) -> None:
        """The attempt with this number was answered."""
        if number >= self._since:
            self._answers += 1

    def was_outage(self) -> bool:
        """Whether nothing but the last probe was answered since most calls failed: there was no limit."""
        return self.detected and self._answers <= 1

    def down(self, rejected_probes: int, in_flight: int) -> bool:
        """Whether the server is down: one probe after the other was rejected."""
        return rejected_probes >= (_PROBES_FOR_OUTAGE_WITH_CALLS_IN_FLIGHT if in_flight else _PROBES_FOR_OUTAGE)

    def forget(self, share: float, sent: int) -> None:
        """The failures were chance, or an outage: of the calls from now on this share fails by chance."""
        self.detected = False
        self._test = SurgeTest(max(_CHANCE_SHARE, share), OVERLIMIT_SHARE, sent)


_NEAR_TIMEOUT_RATIO = 3.0  # times the usual latency is nearly the time limit: calls wait at the server ...
_MAX_LATENCY_SHARE = 0.5  # ... where no answer is to take longer than this share of the limit
_SOONER_RATIO = 0.8  # of what answers took before: those that take longer with far fewer calls are held up by no others
_HALVINGS = 2  # the number of calls is halved so often to find that out
_MIN_ANSWERS = 4  # answers before anything follows from them


class Backlog(LimitState):
    """Half as many calls in flight, then one more each round, as long as answers take half the time limit at most.

    Each call that was given up may still be worked on, so what was on its way counts for nothing.  Until it is known
    that answers come sooner so, one that is given up counts as an answer: some calls take long by themselves.

    Args:
        send log: what has been sent.
        time_limit: seconds after which calls were given up.
        now: the time.

    Attributes:
        helps: whether answers came sooner with fewer calls in flight; None while that is not known.
    """

    pauses_all = False
    why = "more calls in flight would only wait at the server until they are given up"

    def __init__(self, send_log: SendLog, time_limit: float, now: float) -> None:
        super().__init__(send_log)
        self.helps: Optional[bool] = None
        self._limit = max(1, (send_log.in_flight + 1) // 2)
        self._time_limit = time_limit
        self._before = send_log.latency
        self._answered_with_more = False  # at least one of a round with as many in flight, or with more
        self._halvings = 1
        self._settled = False  # whether what was on its way at the last change has been worked off
        self._begin(now)

    @staticmethod
    def explains(send_log: SendLog, waited: float) -> bool:
        """Whether a call was given up after ``waited`` seconds because the server has too much to do."""
        return send_log.in_flight > 1 and send_log.latency * _NEAR_TIMEOUT_RATIO >= waited

    def _begin(self, now: float) -> None:
        self._since = now
        self._ended = self._timed_out = 0
        self._total_seconds = 0.0

    @property
    def limit(self) -> Optional[int]:
        return self._limit

    def wait(self, now: float) -> float:
        return 0.0 if self._send_log.in_flight < self._limit else math.inf

    def sent(self, now: float) -> LimitState:
        return self

    def accepted(self, record: SendRecord, now: float) -> LimitState:
        if record.sent_at >= self._since:
            self._count(now - record.sent_at, now)
        return self

    def _count(self, took: float, now: float) -> None:
        self._ended += 1
        self._total_seconds += took
        if self._ended >= max(_MIN_ANSWERS, self._limit):
            self._evaluate(now)

    def _evaluate(self, now: float) -> None:
        """Judge by the second half of twice as many answers as there are calls in flight."""
        latency, settled = self._total_seconds / self._ended, self._settled
        self._answered_with_more = self._answered_with_more or self._timed_out < self._ended
        self._begin(now)
        self._settled = not settled
        if not settled:
            return
        if self.helps is None:
            if latency > _SOONER_RATIO * self._before and self._halvings < _HALVINGS:
                self._halvings += 1
                self._limit = max(1, self._limit // 2)
                return
            self.helps = latency <= _SOONER_RATIO * self._before
        if latency * (self._limit + 1) / self._limit <= _MAX_LATENCY_SHARE * self._time_limit:
            self._limit += 1

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        return LoadTrial(self._send_log, rejection, pause)

    def timed_out(self, record: SendRecord, now: float) -> bool:
        """A call was given up; returns whether that is due to what was in flight before."""
        if record.sent_at < self._since:
            return True
        self._timed_out += 1
        none_answered = self._timed_out > self._ended and self._timed_out >= _MIN_ANSWERS
        if self.helps is None and not none_answered:
            self._count(now - record.sent_at, now)  # it may take so long by itself
        elif self._limit == 1 or (self.helps is None and self._answered_with_more):
            self.helps = False
        else:
            self._limit //= 2
            self._settled = False
            self._begin(now)
        return False
