"""Overload: a server that fails calls, or answers too late, because it has too much to do."""

from __future__ import annotations

import math
from typing import Optional

from .random_rejections import LoadTrial
from .send_log import Rejection, SendLog, SendRecord
from .sequential_tests import OVERLIMIT_SHARE, SurgeTest
from .states import LimitState

__all__ = ["Backlog", "Overload"]


_CHANCE_SHARE = 0.25  # of the calls may fail without saying anything about the load
_OVERLOAD_LOG_ODDS = 10.0  # that most fail

_PROBES_FOR_OUTAGE = 5  # rejected in a row: the server is down ...
_PROBES_FOR_OUTAGE_WITH_CALLS_IN_FLIGHT = 12  # ... or these, while calls are in flight that may yet be answered


class Overload:
    """Takes failures for chance until most calls fail; then they are rejections, and the limit is to be found.

    Many limiters say 503: nginx and haproxy do by default.

    Attributes:
        detected: True if failures are rejections.
    """

    __slots__ = ("_answers", "_since", "_test", "detected")

    def __init__(self) -> None:
        self.detected = False
        self._answers = 0  # of calls sent since it is known
        self._since = 0
        self._test = SurgeTest(_CHANCE_SHARE, OVERLIMIT_SHARE, 0)

    @property
    def share(self) -> float:
        """Share of calls that may fail by chance."""
        return _CHANCE_SHARE

    def failed(self, number: int, sent: int) -> bool:
        """Note the failure of the attempt with this number, of ``sent`` in all; return True if it is a rejection."""
        if not self.detected:
            self._test.reject(number)
            if self._test.log_odds >= _OVERLOAD_LOG_ODDS:
                self.detected, self._answers, self._since = True, 0, sent
        return self.detected

    def answered(self, number: int) -> None:
        """Note the answer to the attempt with this number."""
        if number >= self._since:
            self._answers += 1

    def was_outage(self) -> bool:
        """Return True if only the last probe was answered since most calls failed: there was no limit."""
        return self.detected and self._answers <= 1

    def down(self, rejected_probes: int, in_flight: int) -> bool:
        """Return True if the server is down: one probe after the other was rejected."""
        return rejected_probes >= (_PROBES_FOR_OUTAGE_WITH_CALLS_IN_FLIGHT if in_flight else _PROBES_FOR_OUTAGE)

    def forget(self, share: float, sent: int) -> None:
        """Take the failures for chance, or for an outage: from now on ``share`` of the calls fails by chance."""
        self.detected = False
        self._test = SurgeTest(max(_CHANCE_SHARE, share), OVERLIMIT_SHARE, sent)


_NEAR_TIMEOUT_RATIO = 3.0  # times the mean latency reaches the timeout: calls wait at the server ...
_MAX_LATENCY_SHARE = 0.5  # ... where no answer is to take longer than this share of the timeout
_SOONER_RATIO = 0.8  # of the latency before: answers that take longer with far fewer calls do not wait for others
_HALVINGS = 2  # of the number of calls, to find that out
_MIN_ANSWERS = 4  # before anything follows from them


class Backlog(LimitState):
    """Calls wait too long at the server: half as many in flight, then one more each round while answers come in time.

    A call that timed out may still be worked on, so what was in flight before does not count.  Until it is known that
    answers come sooner with fewer calls, a timeout counts as an answer: some calls take long by themselves.

    Args:
        send_log: what has been sent.
        timeout: seconds after which calls timed out.
        now: the time.

    Attributes:
        helps: True if answers came sooner with fewer calls in flight; None while that is unknown.
    """

    pauses_all = False
    why = "more calls in flight would only wait at the server until they are given up"

    def __init__(self, send_log: SendLog, timeout: float, now: float) -> None:
        super().__init__(send_log)
        self.helps: Optional[bool] = None
        self._limit = max(1, (send_log.in_flight + 1) // 2)
        self._timeout = timeout
        self._latency_before = send_log.latency
        self._answered_with_more = False  # at least one of a round with as many in flight, or with more
        self._halvings = 1
        self._settled = False  # True once what was in flight at the last change has ended
        self._begin(now)

    @staticmethod
    def explains(send_log: SendLog, waited: float) -> bool:
        """Return True if a call timed out after ``waited`` seconds because the server has too much to do."""
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

    def _count(self, latency: float, now: float) -> None:
        self._ended += 1
        self._total_seconds += latency
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
            if latency > _SOONER_RATIO * self._latency_before and self._halvings < _HALVINGS:
                self._halvings += 1
                self._limit = max(1, self._limit // 2)
                return
            self.helps = latency <= _SOONER_RATIO * self._latency_before
        if latency * (self._limit + 1) / self._limit <= _MAX_LATENCY_SHARE * self._timeout:
            self._limit += 1

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        return LoadTrial(self._send_log, rejection, pause)

    def timed_out(self, record: SendRecord, now: float) -> bool:
        """Note that a call timed out; return True if that is due to what was in flight before."""
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
