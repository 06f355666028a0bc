"""Adaptive limiter: how fast and how many calls are sent to a server whose limits are unknown."""

from __future__ import annotations

import math
from typing import Optional

from ..health import expected_failure_run
from .overload import Backlog, Overload
from .random_rejections import LoadTrial, RandomRejections
from .send_log import Rejection, SendLog, SendRecord
from .sequential_tests import BackgroundRate
from .slow_start import Unlimited
from .states import LimitedByConcurrency, LimitedByRate, LimitState, Probing

__all__ = ["AdaptiveLimiter"]

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
        "_background",
        "_fewer_may_help",
        "_informative_from",
        "_overload",
        "_paused_until",
        "_probed_at",
        "_rejected_probes",
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
        self._fewer_may_help = True  # as far as is known
        self._was_limited = False  # when failures became rejections
        self._informative_from = -math.inf
        self._paused_until = -math.inf
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
        elif isinstance(state, Unlimited) and self._fewer_may_help and Backlog.explains(self.send_log, waited):
            self.state = Backlog(self.send_log, waited, now)
            self.overloaded = True
        self.send_log.give_up()

    def _leave_backlog(self) -> None:
        self._fewer_may_help = False
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
            self._paused_until = max(self._paused_until, now + pause)

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
            self._paused_until = max(self._paused_until, now + pause)

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
