"""Adaptive limiter: how fast and how many calls are sent to a server whose limits are unknown.

It learns from rejections (429 and the like), from failures that mean overload (:class:`Overload`), and from answers
that come too late (:class:`Backlog`).
"""

from __future__ import annotations

import math
from typing import Optional

from ..health import expected_failure_run
from .random_rejections import LoadTrial, RandomRejections
from .send_log import Rejection, SendLog, SendRecord
from .sequential_tests import OVERLIMIT_SHARE, BackgroundRate, SurgeTest
from .slow_start import Unlimited
from .states import LimitedByConcurrency, LimitedByRate, LimitState, Probing

__all__ = ["AdaptiveLimiter", "Backlog", "Overload"]


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
            if self._test.best_log_odds >= _OVERLOAD_LOG_ODDS:
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
_MIN_TIMEOUTS = 16  # after which it is tried again, where most calls time out


class Backlog(LimitState):
    """Calls wait too long at the server: half as many in flight, then one more each round while answers come in time.

    A call that timed out may still be worked on, so what was in flight before does not count.  Until it is known that
    answers come sooner with fewer calls, a timeout counts as an answer: some calls take long by themselves.

    Args:
        send_log: what has been sent.
        timeout: seconds after which calls timed out.
        now: the time.
        trial: how often this has been tried before.

    Attributes:
        helps: True if answers came sooner with fewer calls in flight; None while that is unknown.
    """

    pauses_all = False
    why = "more calls in flight would only wait at the server until they are given up"

    def __init__(self, send_log: SendLog, timeout: float, now: float, trial: int = 0) -> None:
        super().__init__(send_log)
        self.helps: Optional[bool] = None
        self._limit = max(1, (send_log.in_flight + 1) >> (trial + 1))
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
        """Note that a call timed out; return True if that is, or may be, due to what else was in flight."""
        if record.sent_at < self._since:
            return True
        self._timed_out += 1
        none_answered = self._timed_out > self._ended and self._timed_out >= _MIN_ANSWERS
        is_unknown = self.helps is None
        if is_unknown and not none_answered:
            self._count(now - record.sent_at, now)  # it may take so long by itself
        elif is_unknown and self._answered_with_more and not self._settled:
            self._settled = True  # the server may still be busy with the calls that timed out before
            self._begin(now)
        elif self._limit == 1 or (is_unknown and self._answered_with_more):
            self.helps = False
        else:
            self._limit //= 2
            self._settled = False
            self._begin(now)
        return is_unknown and self.helps is not False


_MAX_PAUSE_SECONDS = 120.0

# The pause after a rejection without a hint: about the time of one send, within these; twice as long for each probe in
# a row that is rejected.
_MIN_OWN_PAUSE_SECONDS = 0.03
_MAX_OWN_PAUSE_SECONDS = 1.0
_MAX_SILENT_PAUSE_SECONDS = 0.25  # where nothing at all is accepted: it may be back at any moment
_MAX_PAUSE_EXPONENT = 6

_EXPECTED_RUN_ATTEMPTS = 1000.0  # among these a run of rejections of one call is explained by chance


class AdaptiveLimiter:
    """Admits calls to one (endpoint, model), as many and as fast as it accepts.

    Not thread-safe: the caller holds the lock.

    Attributes:
        send_log: counts of what was sent.
        state: what is known about the server's limit.
        overloaded: True if the latest failure is due to the load.
    """

    __slots__ = (
        "_accepted_before",
        "_asked_until",
        "_background",
        "_backlog_trials",
        "_ended",
        "_informative_from",
        "_overload",
        "_paused_until",
        "_probed_at",
        "_rejected_probes",
        "_timed_out",
        "_was_limited",
        "overloaded",
        "send_log",
        "state",
    )

    def __init__(self) -> None:
        self.send_log = SendLog()
        self.state: LimitState = Unlimited(self.send_log)
        self.overloaded = False
        self._overload = Overload()
        self._background: Optional[BackgroundRate] = None
        self._backlog_trials = 0  # in which fewer calls did not help
        self._ended = self._timed_out = 0  # since the last of them
        self._was_limited = False  # when failures became rejections
        self._informative_from = -math.inf
        self._paused_until = -math.inf
        self._asked_until = -math.inf  # the part of the pause that the server asked for
        self._accepted_before = -1  # before the latest rejection
        self._rejected_probes = 0  # in a row: first calls after a pause
        self._probed_at = -math.inf

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt may be sent; ``inf`` for not before one in flight ends."""
        if now < self._paused_until:
            return self._paused_until - now
        return self.state.wait(now)

    def sent(self, now: float) -> SendRecord:
        """Note that an attempt is sent; its record is handed back when it returns."""
        self.state = self.state.sent(now)
        return self.send_log.send(now)

    # -- answers, rejections and failures ---------------------------------------------------------------

    def accepted(self, record: SendRecord, now: float) -> None:
        """Note that the attempt was answered."""
        self.send_log.answer(record, now)
        self._overload.answered(record.number)
        self._ended += 1
        if record.sent_at >= self._informative_from:
            self.state = self.state.accepted(record, now)
        if isinstance(self.state, Backlog) and self.state.helps is False:
            self._leave_backlog()
        elif self.state.answered(record):
            self._was_down()

    def ended(self) -> None:
        """Note the end of an attempt that says nothing about limits."""
        self.overloaded = False
        self.send_log.give_up()

    def timed_out(self, record: SendRecord, now: float) -> None:
        """Note that there was no answer in time."""
        state, waited = self.state, now - record.sent_at
        self.overloaded = False
        if isinstance(state, Backlog):
            self.overloaded = state.timed_out(record, now)
            if state.helps is False:
                self._leave_backlog()
        elif isinstance(state, Unlimited):
            self._ended += 1
            self._timed_out += 1
            if self._may_be_backlog() and Backlog.explains(self.send_log, waited):
                self.state = Backlog(self.send_log, waited, now, self._backlog_trials)
                self.overloaded = True
        self.send_log.give_up()

    def _may_be_backlog(self) -> bool:
        """Return True if fewer calls may help: they have not been tried, or most calls time out without them."""
        most = self._timed_out >= _MIN_TIMEOUTS and 2 * self._timed_out > self._ended
        return not self._backlog_trials or most

    def _leave_backlog(self) -> None:
        self._backlog_trials += 1
        self._ended = self._timed_out = 0
        self.state = Unlimited(self.send_log)

    def failed(self, record: SendRecord, now: float, hint: Optional[float]) -> None:
        """Note a failure of the server or the connection: chance, unless most calls fail.

        Args:
            record: of the attempt.
            now: the time.
            hint: seconds that the server asks to wait, None without a hint.
        """
        was_detected = self._overload.detected
        has_company = record.ahead > 0  # a call that fails with no other in flight fails for another reason than load
        self.overloaded = was_detected or (has_company and self._overload.failed(record.number, self.send_log.sent))
        if hint is not None and not isinstance(self.state, (LimitedByRate, LimitedByConcurrency)):
            hint = min(hint, _MAX_OWN_PAUSE_SECONDS)  # it may be down: probes have to find out when it is back
        if self.overloaded and not was_detected:
            self._was_limited = self.limited
        if was_detected or (self.overloaded and self.limited):
            self.rejected(record, now, hint)
            return
        rejection = self.send_log.reject(record, now, hint)
        if self.overloaded:
            self._accepted_before = rejection.accepted
            pause = self._pause(hint)
            self._enter(LoadTrial(self.send_log, rejection, pause, self._overload.share, record.ahead), now)
            self._pause_until(now + pause, hint)

    def rejected(self, record: SendRecord, now: float, hint: Optional[float]) -> None:
        """Note that the attempt was rejected, with a hint of ``hint`` seconds.

        Calls that were in flight when a rejection came back had been sent too fast as well: only what is sent after it
        tells something new.
        """
        rejection, pause = self.send_log.reject(record, now, hint), self._pause(hint)
        if self.state.ignores(rejection, pause) or self._is_random(record):
            return
        is_informative = record.sent_at >= self._informative_from
        self._count_probe(rejection, is_informative)
        pause = self._pause(hint)
        if is_informative:
            self._informative_from = now
            self._enter(self.state.rejected(rejection, pause), now)
        else:
            self._enter(self.state.also_rejected(rejection), now)
        if self.state.pauses_all:
            self._pause_until(now + pause, hint)

    def _enter(self, state: LimitState, now: float) -> None:
        if state is self.state:
            return
        self.state = state
        self._informative_from = now
        if isinstance(state, RandomRejections) and self._overload.detected:
            self._overload.forget(state.random_share, self.send_log.sent)

    def _is_random(self, record: SendRecord) -> bool:
        """Return True for a rejection that comes whatever the load, False for one of a limit."""
        share = self.state.random_share
        if share and (self._background is None or self._background.share != share):
            self._background = BackgroundRate(share, self.send_log.sent)
        return self._background is not None and self.limited and self._background.explains(record.number)

    def _count_probe(self, rejection: Rejection, is_informative: bool) -> None:
        if rejection.accepted > self._accepted_before:
            self._rejected_probes, self._accepted_before = 0, rejection.accepted
        elif is_informative and rejection.sent_at >= self._paused_until > self._probed_at:
            self._rejected_probes += 1
            self._probed_at = self._paused_until

    def _pause_until(self, until: float, hint: Optional[float]) -> None:
        self._paused_until = max(self._paused_until, until)
        if hint is not None:
            self._asked_until = max(self._asked_until, until)

    def _pause(self, hint: Optional[float]) -> float:
        if hint is not None:
            return min(hint, _MAX_PAUSE_SECONDS)
        rate = self.state.rate
        pause = max(_MIN_OWN_PAUSE_SECONDS, 0.0 if rate is None else 1 / rate)
        longest = _MAX_SILENT_PAUSE_SECONDS if self.state.silent else _MAX_OWN_PAUSE_SECONDS
        return min(longest, pause * 2.0 ** min(self._rejected_probes, _MAX_PAUSE_EXPONENT))

    # -- what is known ----------------------------------------------------------------------------------

    @property
    def limited(self) -> bool:
        """True where there is a limit."""
        return isinstance(self.state, (Probing, LimitedByRate, LimitedByConcurrency))

    @property
    def down(self) -> Optional[bool]:
        """True where the server is down, None where failures do not depend on the load."""
        return self._overload.down(self._rejected_probes, self.send_log.in_flight) if self._overload.detected else None

    @property
    def chance_rejections(self) -> int:
        """Rejections of one call in a row that chance explains; 0 where rejections depend on the load."""
        background = self._background
        return 0 if background is None else expected_failure_run(_EXPECTED_RUN_ATTEMPTS, background.share)

    def paused_for(self, now: float) -> float:
        """Return the seconds until anything is sent again after a rejection; 0 when it is not paused."""
        return max(0.0, self._paused_until - now)

    def asked_for(self, now: float) -> float:
        """Return the seconds for which the server has asked to wait; 0 where it has not, or nothing is paused."""
        return max(0.0, self._asked_until - now)

    def restart(self) -> None:
        """Begin anew with a slow start after an outage, unless a limit is known."""
        self._rejected_probes = 0
        if self._overload.was_outage():
            self._was_down()
        elif isinstance(self.state, Unlimited):
            self.state = Unlimited(self.send_log)

    def _was_down(self) -> None:
        """Forget the failures: they were an outage, not rejections."""
        self._rejected_probes = 0
        self._overload.forget(0.0, self.send_log.sent)
        if not self._was_limited:
            self.state = Unlimited(self.send_log)
