"""What kind of limit a server has, as far as it is known, and what follows from it.

A server that counts requests per time and one that counts requests in flight both refuse what is too much, and call
for opposite things: the first for a pause of all and a lower rate, the second for fewer calls at once and no pause.

    Doubt --"it is a rate"--> ByRate <--overturned--> ByConcurrency <--"it is a number"-- Doubt

An opinion on the kind of limit that a server has.
"""

from __future__ import annotations

from typing import Dict, Optional

from .concurrency import ConcurrencyController
from .rate import RateController, RateProbe
from .send_log import Rejection, SendLog, SendRecord

__all__ = ["LimitState", "LimitedByConcurrency", "LimitedByRate", "Probing"]


class LimitState:
    """One opinion on the server's limit.

    Attributes:
        pauses_all: whether a refusal holds up all calls, not just its own.
        chance: the share of calls that is refused whatever the pace.
        why: the opinion in a few words, None without one.
        silent: whether the server has failed every call since it began to.
    """

    pauses_all = True
    chance = 0.0
    why: Optional[str] = None
    silent = False

    def __init__(self, tally: SendLog) -> None:
        self._tally = tally

    @property
    def rate(self) -> Optional[float]:
        """Sends a second, None where none is set."""
        return None

    @property
    def limit(self) -> Optional[int]:
        """Calls in flight at most, None where none is set."""
        return None

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may be sent; ``inf`` for not before something ends."""
        raise NotImplementedError

    def sent(self, now: float) -> LimitState:
        """An attempt goes out."""
        raise NotImplementedError

    def accepted(self, ticket: SendRecord, now: float) -> LimitState:
        """An attempt that was sent after the latest refusal was answered."""
        return self

    def answered(self, ticket: SendRecord) -> bool:
        """An attempt was answered, whenever it was sent; returns whether that shows that the server was only down."""
        return False

    def expected(self, refusal: Rejection, pause: float) -> bool:
        """Whether nothing follows from a refusal, because some calls were sent to find out whether they are refused."""
        return False

    def refused(self, refusal: Rejection, pause: float) -> LimitState:
        """An attempt that was sent after the latest refusal was refused; a pause of so many seconds is due."""
        raise NotImplementedError

    def refused_too(self, refusal: Rejection) -> LimitState:
        """An attempt that was sent before the latest refusal came back was refused as well."""
        return self


_GROW_EVERY = 0.02  # seconds

# Doubt.
_VOTES_FOR_A_NUMBER = 2
_MANY_ANSWERS = 10  # times the number; with all places taken, a rate would have refused something before
_FEWEST_ANSWERS = 3  # before a number is believed: something must have ended for something to be refused again
_CONTRADICTIONS = 2
_FAR_BELOW = 0.8  # of the limit: a number in flight does not refuse there
_BEYOND = 0.1  # of the first limit: accepted so far beyond it (and at least two), it was no number

# A decision that was taken is overturned by more.
_SAME_NUMBER_VOTES = 3  # refusals at one number in flight; twice as many after each time that was wrong
_MOST_VOTES = 64
_TOP = 0.85  # a refusal counts if so large a share of the accepted had fewer in flight
_FEWEST_IN_CROWD = 5
_REFUSALS_AWAY_FROM_LIMIT = 4
_QUIET_ANSWERS = 4  # times the limit; a refusal after so many answers is one by itself


class Probing(LimitState):
    """Something was refused, and why is not known: no more in flight than was accepted, and a pause, until it is.

    Then one more than that is tried, far enough from the last send that no rate would mind.  What is refused
    again, twice in a row, is refused for that number; what is refused below it, or accepted beyond it, is limited by
    rate.
    """

    why = "finding out whether the server limits the rate or the calls in flight"

    def __init__(self, tally: SendLog, refusal: Rejection, pause: float) -> None:
        super().__init__(tally)
        self._refusal = refusal
        self._first = max(1, refusal.in_flight)
        self._control = ConcurrencyController(self._first, patience=max(pause, 2 * tally.turnaround), in_doubt=True)
        self._batch = True  # refusals of what was sent at the same time still come in
        self._votes = self._contradictions = 0
        self._answers = self._answers_lately = tally.finished
        self._last_sent = refusal.sent_at

    @property
    def limit(self) -> Optional[int]:
        return self._control.limit

    def wait(self, now: float) -> float:
        return self._control.wait(now, self._tally)

    def sent(self, now: float) -> LimitState:
        self._control.sent(now, self._tally)
        self._last_sent = now
        if self._control.confirmed >= self._first + max(2, _BEYOND * self._first):
            return LimitedByRate(self._tally, self._tally.sent_lately(now), now, now)
        return self

    def accepted(self, ticket: SendRecord, now: float) -> LimitState:
        self._control.accepted(ticket.ahead + 1)
        return self

    def refused_too(self, refusal: Rejection) -> LimitState:
        """Those that come back later know better how many were accepted before them."""
        if self._batch:
            self._control.lower(refusal.in_flight)
            self._first = self._control.limit
        return self

    def refused(self, refusal: Rejection, pause: float) -> LimitState:
        self._batch = False
        if self._is_rate(refusal.in_flight):
            return LimitedByRate(self._tally, self._rate_by(refusal), self._last_sent, refusal.now).begin(
                refusal, pause
            )
        if self._is_number(refusal.in_flight):
            return LimitedByConcurrency(self._tally, min(self._control.limit, refusal.in_flight))
        self._control.refused(refusal.in_flight, self._tally.latency)
        return self

    def _rate_by(self, refusal: Rejection) -> float:
        """The rate at which calls were accepted: between two refusals no more than was refilled, and one."""
        refilled = refusal.accepted - self._refusal.accepted + 1
        return min(refusal.lately, max(1, refilled) / max(1e-3, refusal.sent_at - self._refusal.sent_at))

    def _is_rate(self, in_flight: int) -> bool:
        self._contradictions = self._contradictions + 1 if self._control.contradicts(in_flight) else 0
        far_below = in_flight < _FAR_BELOW * self._control.limit - 1
        return in_flight == 0 or far_below or self._contradictions >= _CONTRADICTIONS

    def _is_number(self, in_flight: int) -> bool:
        # With all places taken any refusal comes at that number; that of one call more speaks of it.
        probing, finished = self._control.probing, self._tally.finished
        tried = self._control.confirmed if probing else self._control.limit
        speaks = probing or finished - self._answers_lately > _MANY_ANSWERS * tried
        self._answers_lately = finished
        if self._contradictions or in_flight < 0.9 * tried:
            self._votes = 0
        elif speaks:
            self._votes += 1
        answers = finished - self._answers
        return self._votes >= _VOTES_FOR_A_NUMBER and answers >= max(_FEWEST_ANSWERS, self._first)


class LimitedByRate(LimitState):
    """The server limits the rate: send at what it accepts, and pause when it says so.

    Refused again and again with more in flight than at nearly all calls that were accepted, it is the number.
    """

    why = "the server limits the rate"

    def __init__(
        self, tally: SendLog, rate: float, last_sent: float, now: float, votes: int = _SAME_NUMBER_VOTES
    ) -> None:
        super().__init__(tally)
        self._control = RateController(rate, last_sent, now)
        self._grown_at = now
        self._crowd: Dict[int, int] = {}  # accepted since the latest refusal, by the number in flight
        self._votes = 0
        self._votes_needed = votes
        self._leap = RateProbe(tally)

    @property
    def rate(self) -> Optional[float]:
        return self._control.rate

    def wait(self, now: float) -> float:
        if now - self._grown_at >= _GROW_EVERY:
            self._grown_at = now
            tally = self._tally
            self._control.grow(now, tally.sent_lately(now), tally.mean_rate(now), tally.turnaround)
            rate = self._leap.passed(now)
            if rate:
                self._control.rate = max(self._control.rate, rate)
                self.chance = self._leap.chance(rate) or self.chance
        return self._control.wait(now)

    def sent(self, now: float) -> LimitState:
        self._control.sent(now, self._leap.factor())
        return self

    def expected(self, refusal: Rejection, pause: float) -> bool:
        return self._leap.refused(refusal, self._control.rate, pause)

    def accepted(self, ticket: SendRecord, now: float) -> LimitState:
        self._crowd[ticket.ahead] = self._crowd.get(ticket.ahead, 0) + 1
        return self

    def refused(self, refusal: Rejection, pause: float) -> LimitState:
        self._control.refused(refusal, pause, self._tally.turnaround, chance=self.chance)
        self._vote(refusal.in_flight)
        self._crowd.clear()
        if self._votes >= self._votes_needed:
            return LimitedByConcurrency(self._tally, refusal.in_flight, self._votes_needed)
        return self

    def begin(self, refusal: Rejection, pause: float) -> LimitedByRate:
        """This refusal showed that it is the rate."""
        self._control.begin(refusal, pause)
        return self

    def _vote(self, in_flight: int) -> None:
        accepted = sum(self._crowd.values())
        if accepted < _FEWEST_IN_CROWD:
            return
        with_fewer = sum(count for ahead, count in self._crowd.items() if ahead < in_flight)
        self._votes = self._votes + 1 if in_flight and with_fewer >= _TOP * accepted else 0


class LimitedByConcurrency(LimitState):
    """The server limits the calls in flight: stay at that number, try one more now and then, and never pause.

    Such a server refuses only at its limit.  Refused with nothing in flight, or several times in a row below
    what had been accepted, it is the rate; but not where others may have taken places that were left to them.
    """

    pauses_all = False
    why = "the server limits the calls in flight"

    def __init__(self, tally: SendLog, limit: int, votes: int = _SAME_NUMBER_VOTES) -> None:
        super().__init__(tally)
        self._control = ConcurrencyController(limit)
        self._away = 0  # refusals in a row that were not at the limit
        self._answers = tally.finished
        self._votes_needed = votes

    @property
    def limit(self) -> Optional[int]:
        return self._control.limit

    def wait(self, now: float) -> float:
        return self._control.wait(now, self._tally)

    def sent(self, now: float) -> LimitState:
        self._control.sent(now, self._tally)
        return self

    def accepted(self, ticket: SendRecord, now: float) -> LimitState:
        self._control.accepted(ticket.ahead + 1)
        return self

    def refused(self, refusal: Rejection, pause: float) -> LimitState:
        if not self._control.taken(refusal.in_flight):
            self._away = 0 if self._at_limit(refusal.in_flight) else self._away + 1
        self._answers = self._tally.finished
        if refusal.in_flight == 0 or self._away >= _REFUSALS_AWAY_FROM_LIMIT:
            votes = min(_MOST_VOTES, 2 * self._votes_needed)
            return LimitedByRate(self._tally, refusal.lately, refusal.sent_at, refusal.now, votes)
        self._control.refused(refusal.in_flight, self._tally.latency)
        return self

    def _at_limit(self, in_flight: int) -> bool:
        if self._control.probing:
            return not self._control.contradicts(in_flight)
        return self._tally.finished - self._answers > _QUIET_ANSWERS * self._control.limit
