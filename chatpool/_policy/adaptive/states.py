"""States of the adaptive limiter: what kind of limit the server has, as far as is known, and how to send under it.

A server that limits the rate and one that limits the calls in flight both reject what is too much, and call for
opposite reactions: the first for a pause of all calls and a lower rate, the second for fewer calls at once and no
pause.

    Probing --"it is the rate"--> LimitedByRate <--overturned--> LimitedByConcurrency <--"it is the number"-- Probing
"""

from __future__ import annotations

from typing import Dict, Optional

from .concurrency import ConcurrencyController
from .rate import RateController, RateProbe
from .send_log import Rejection, SendLog, SendRecord

__all__ = ["LimitState", "LimitedByConcurrency", "LimitedByRate", "Probing"]


class LimitState:
    """One hypothesis on the server's limit.

    Attributes:
        pauses_all: True if a rejection delays all calls, not just its own.
        random_share: the share of calls that is rejected whatever the load.
        why: a short description of the hypothesis, None without one.
        silent: True if the server has failed every call since it began to fail.
        is_search: True while it is unknown what the limit is.
    """

    pauses_all = True
    random_share = 0.0
    why: Optional[str] = None
    silent = False
    is_search = False

    def __init__(self, send_log: SendLog) -> None:
        self._send_log = send_log

    @property
    def rate(self) -> Optional[float]:
        """Sends a second, None where none is set."""
        return None

    @property
    def limit(self) -> Optional[int]:
        """Calls in flight at most, None where none is set."""
        return None

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt may be sent; ``inf`` for not before one in flight ends."""
        raise NotImplementedError

    def sent(self, now: float) -> LimitState:
        """Note that an attempt is sent; return the next state."""
        raise NotImplementedError

    def accepted(self, record: SendRecord, now: float) -> LimitState:
        """Note the answer to an attempt that was sent after the latest rejection; return the next state."""
        return self

    def answered(self, record: SendRecord) -> bool:
        """Note any answer, whenever its attempt was sent; return True if it shows that the server was only down."""
        return False

    def ignores(self, rejection: Rejection, pause: float) -> bool:
        """Return True if nothing follows from a rejection, because its call belongs to a probe of the rate."""
        return False

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        """Note the rejection of an attempt that was sent after the latest rejection; return the next state.

        Args:
            rejection: the rejection.
            pause: seconds for which a pause is due.
        """
        raise NotImplementedError

    def also_rejected(self, rejection: Rejection) -> LimitState:
        """Note the rejection of an attempt sent before the latest rejection was known; return the next state."""
        return self


_GROW_EVERY_SECONDS = 0.02

# Probing.
_VOTES_FOR_CONCURRENCY = 2  # rejections in a row
_QUIET_ANSWERS_PER_SLOT = 10  # with all slots taken, a limit of the rate would have rejected something before
_MIN_ANSWERS = 3  # before a limit of calls in flight is believed: a call must have ended for one to be rejected again
_MAX_CONTRADICTIONS = 2  # rejections in a row
_FAR_BELOW_SHARE = 0.8  # of the limit: a limit of calls in flight does not reject there
_BEYOND_SHARE = 0.1  # of the first limit: accepted so far beyond it (and at least two), it is no limit in flight

# Overturning a decision takes more.
_VOTES_TO_OVERTURN = 3  # rejections at one number in flight; twice as many after each decision that was wrong
_MAX_VOTES_TO_OVERTURN = 64
_TOP_SHARE = 0.85  # a rejection counts if this share of the accepted calls had fewer in flight
_MIN_ACCEPTED_TO_VOTE = 5  # calls
_REJECTIONS_AWAY_FROM_LIMIT = 4  # in a row
_UNRELATED_ANSWERS_PER_SLOT = 4  # after these answers a rejection has nothing to do with the one before


class Probing(LimitState):
    """Something was rejected, and the kind of limit is unknown: pause, then no more in flight than was accepted.

    Then one more than that is tried, far enough from the last send that no limit of the rate would reject it.  What
    is rejected again, twice in a row, is rejected for the number in flight; what is rejected below that number, or
    accepted beyond it, is limited by rate.
    """

    why = "finding out whether the server limits the rate or the calls in flight"
    is_search = True

    def __init__(self, send_log: SendLog, rejection: Rejection, pause: float) -> None:
        super().__init__(send_log)
        self._rejection = rejection
        self._first = max(1, rejection.in_flight)
        self._controller = ConcurrencyController(
            self._first, probe_interval=max(pause, 2 * send_log.rejection_latency), in_doubt=True
        )
        self._first_batch = True  # rejections of what was sent at the same time still come in
        self._votes = self._contradictions = 0
        self._answers = self._answers_at_vote = send_log.finished
        self._last_sent = rejection.sent_at

    @property
    def limit(self) -> Optional[int]:
        return self._controller.limit

    def wait(self, now: float) -> float:
        return self._controller.wait(now, self._send_log)

    def sent(self, now: float) -> LimitState:
        self._controller.sent(now, self._send_log)
        self._last_sent = now
        if self._controller.confirmed >= self._first + max(2, _BEYOND_SHARE * self._first):
            return LimitedByRate(self._send_log, self._send_log.send_rate(now), now, now)
        return self

    def accepted(self, record: SendRecord, now: float) -> LimitState:
        self._controller.accepted(record.ahead + 1)
        return self

    def also_rejected(self, rejection: Rejection) -> LimitState:
        """Lower the limit: rejections that come back later know better how many were accepted before them."""
        if self._first_batch:
            self._controller.lower(rejection.in_flight)
            self._first = self._controller.limit
        return self

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        self._first_batch = False
        if self._is_rate(rejection.in_flight):
            limited = LimitedByRate(self._send_log, self._rate_by(rejection), self._last_sent, rejection.now)
            return limited.begin(rejection, pause)
        if self._is_number(rejection.in_flight):
            return LimitedByConcurrency(self._send_log, min(self._controller.limit, rejection.in_flight))
        self._controller.rejected(rejection.in_flight, self._send_log.latency)
        return self

    def _rate_by(self, rejection: Rejection) -> float:
        """Return the rate at which calls were accepted: between two rejections no more than was refilled, and one."""
        refilled = rejection.accepted - self._rejection.accepted + 1
        return min(rejection.accept_rate, max(1, refilled) / max(1e-3, rejection.sent_at - self._rejection.sent_at))

    def _is_rate(self, in_flight: int) -> bool:
        self._contradictions = self._contradictions + 1 if self._controller.contradicts(in_flight) else 0
        far_below = in_flight < _FAR_BELOW_SHARE * self._controller.limit - 1
        return in_flight == 0 or far_below or self._contradictions >= _MAX_CONTRADICTIONS

    def _is_number(self, in_flight: int) -> bool:
        # With all slots taken any rejection comes at that number; only that of one call more is evidence for it.
        probing, finished = self._controller.probing, self._send_log.finished
        tried = self._controller.confirmed if probing else self._controller.limit
        is_evidence = probing or finished - self._answers_at_vote > _QUIET_ANSWERS_PER_SLOT * tried
        self._answers_at_vote = finished
        if self._contradictions or in_flight < 0.9 * tried:
            self._votes = 0
        elif is_evidence:
            self._votes += 1
        answers = finished - self._answers
        return self._votes >= _VOTES_FOR_CONCURRENCY and answers >= max(_MIN_ANSWERS, self._first)


class LimitedByRate(LimitState):
    """The server limits the rate: send at what it accepts, and pause when it says so.

    Rejected again and again with more in flight than at nearly all calls that were accepted, it is the number.
    """

    why = "the server limits the rate"

    def __init__(
        self, send_log: SendLog, rate: float, last_sent: float, now: float, votes: int = _VOTES_TO_OVERTURN
    ) -> None:
        super().__init__(send_log)
        self._controller = RateController(rate, last_sent, now)
        self._grown_at = now
        self._accepted_by_load: Dict[int, int] = {}  # accepted since the latest rejection, by the number in flight
        self._votes = 0
        self._votes_needed = votes
        self._rate_probe = RateProbe(send_log)

    @property
    def rate(self) -> Optional[float]:
        return self._controller.rate

    def wait(self, now: float) -> float:
        if now - self._grown_at >= _GROW_EVERY_SECONDS:
            self._grown_at = now
            send_log = self._send_log
            self._controller.grow(now, send_log.send_rate(now), send_log.mean_rate(now), send_log.rejection_latency)
            rate = self._rate_probe.passed(now)
            if rate:
                self._controller.rate = max(self._controller.rate, rate)
                self.random_share = self._rate_probe.random_share(rate) or self.random_share
        return self._controller.wait(now)

    def sent(self, now: float) -> LimitState:
        self._controller.sent(now, self._rate_probe.factor())
        return self

    def ignores(self, rejection: Rejection, pause: float) -> bool:
        return self._rate_probe.rejected(rejection, self._controller.rate, pause)

    def accepted(self, record: SendRecord, now: float) -> LimitState:
        self._accepted_by_load[record.ahead] = self._accepted_by_load.get(record.ahead, 0) + 1
        return self

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        self._controller.rejected(rejection, pause, self._send_log.rejection_latency, random_share=self.random_share)
        self._vote(rejection.in_flight)
        self._accepted_by_load.clear()
        if self._votes >= self._votes_needed:
            return LimitedByConcurrency(self._send_log, rejection.in_flight, self._votes_needed)
        return self

    def begin(self, rejection: Rejection, pause: float) -> LimitedByRate:
        """Pause for the rejection that showed that it is the rate."""
        self._controller.begin(rejection, pause)
        return self

    def _vote(self, in_flight: int) -> None:
        accepted = sum(self._accepted_by_load.values())
        if accepted < _MIN_ACCEPTED_TO_VOTE:
            return
        with_fewer = sum(count for ahead, count in self._accepted_by_load.items() if ahead < in_flight)
        self._votes = self._votes + 1 if in_flight and with_fewer >= _TOP_SHARE * accepted else 0


class LimitedByConcurrency(LimitState):
    """The server limits the calls in flight: stay at that number, try one more now and then, and never pause.

    Such a server rejects only at its limit.  Rejected with nothing in flight, or several times in a row below what had
    been accepted, it is the rate; but not where other clients may have used a share that was left to them.
    """

    pauses_all = False
    why = "the server limits the calls in flight"

    def __init__(self, send_log: SendLog, limit: int, votes: int = _VOTES_TO_OVERTURN) -> None:
        super().__init__(send_log)
        self._controller = ConcurrencyController(limit)
        self._rejections_away = 0  # rejections in a row that were not at the limit
        self._answers = send_log.finished
        self._votes_needed = votes

    @property
    def limit(self) -> Optional[int]:
        return self._controller.limit

    def wait(self, now: float) -> float:
        return self._controller.wait(now, self._send_log)

    def sent(self, now: float) -> LimitState:
        self._controller.sent(now, self._send_log)
        return self

    def accepted(self, record: SendRecord, now: float) -> LimitState:
        self._controller.accepted(record.ahead + 1)
        return self

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        if not self._controller.used_by_others(rejection.in_flight):
            self._rejections_away = 0 if self._at_limit(rejection.in_flight) else self._rejections_away + 1
        self._answers = self._send_log.finished
        if rejection.in_flight == 0 or self._rejections_away >= _REJECTIONS_AWAY_FROM_LIMIT:
            votes = min(_MAX_VOTES_TO_OVERTURN, 2 * self._votes_needed)
            return LimitedByRate(self._send_log, rejection.accept_rate, rejection.sent_at, rejection.now, votes)
        self._controller.rejected(rejection.in_flight, self._send_log.latency)
        return self

    def _at_limit(self, in_flight: int) -> bool:
        if self._controller.probing:
            return not self._controller.contradicts(in_flight)
        return self._send_log.finished - self._answers > _UNRELATED_ANSWERS_PER_SLOT * self._controller.limit
