"""Random rejections: some servers reject calls whatever the load, so this is tested before a limit is looked for.

After the first rejection calls start again one by one.  If most of what follows is rejected, there is a limit.  If
not, rejections are random, until many more calls are rejected.
"""

from __future__ import annotations

import math
from typing import Optional

from .send_log import Rejection, SendLog, SendRecord
from .sequential_tests import OVERLIMIT_SHARE, ShareTest, SurgeTest, possible_share
from .states import LimitState, Probing

__all__ = ["LoadTrial", "RandomRejections"]


# Logarithms of the odds at which the tests decide that ...
_LIMITED_LOG_ODDS = 4.0  # ... most calls are rejected, ...
_SURGE_LOG_ODDS = 8.0  # ... most are where rejections were random before, ...
_UNLIMITED_LOG_ODDS = -5.0  # ... and most are not

_CATCH_UP_SECONDS = 0.005  # a thread that wakes up late makes up for at most this
_SETTLED_RATIO = 2.0  # times as long as a rejection takes: what is not rejected by then is accepted
_AS_MANY_SHARE = 0.9  # of the calls that were in flight when failures began
_MIN_FULL_ANSWERS = 5
# After so many rejected probes, or so long a time in which nothing was accepted since failures began, the first call
# that is accepted says more: go on twice as fast.
_LONG_OUTAGE_PROBES, _LONG_SILENCE_SECONDS = 2, 0.5
_MIN_UNIT_SECONDS, _MAX_UNIT_SECONDS = 0.006, 1.0  # from the first call after the pause to the second


def _settled_by(send_log: SendLog, now: float) -> int:
    """Return the number of the first call that may still be rejected."""
    return send_log.sent_by(now - _SETTLED_RATIO * send_log.rejection_latency)


class LoadTrial(LimitState):
    """Something was rejected: begin again with a single call, and send faster the more are accepted.

    Args:
        send_log: what has been sent.
        rejection: the rejection.
        pause: seconds until the first call.
        share: the share of calls that is rejected at random, as far as is known; None to take it from the send log.
        in_flight_before: calls in flight when the server began to fail, None where it rejects: it may be down, so
            there is no limit before something was accepted, and none if as many are accepted again.
    """

    why = "finding out whether refusals depend on the load"
    is_search = True

    def __init__(
        self,
        send_log: SendLog,
        rejection: Rejection,
        pause: float,
        share: Optional[float] = None,
        in_flight_before: Optional[int] = None,
    ) -> None:
        super().__init__(send_log)
        if share is None:  # six of twelve calls more than were seen, for they may be few
            share = (send_log.rejected + 6) / (send_log.sent + 12)
        self._share = possible_share(share)
        self._pauses = True
        self._in_flight_before = math.inf if in_flight_before is None else in_flight_before
        self._full_answers = 0  # answers to calls that were sent with as many in flight
        self.silent = in_flight_before is not None
        self._rejected_probes = 0
        self._rejected_first = rejection.number
        self._rejected_at = rejection.now
        self._was_long_outage = False
        self._first = send_log.sent
        self._rejected = send_log.rejected
        # What was in flight is tested separately; what is sent from now on is tested from its first rejection.
        self._first_batch = ShareTest(self._share, OVERLIMIT_SHARE, rejection.number + 1)
        self._test: Optional[ShareTest] = None
        self._begin(rejection.now + pause)

    def _begin(self, time: float) -> None:
        self._next = self._resumed = time
        self._sent = 0

    @property
    def pauses_all(self) -> bool:  # type: ignore[override]  # it does as long as nothing is accepted
        return self._pauses

    def wait(self, now: float) -> float:
        return max(0.0, self._next - now)

    def sent(self, now: float) -> LimitState:
        self._sent += 1
        if self._sent == 1:
            long_silence = self.silent and now - self._rejected_at >= _LONG_SILENCE_SECONDS
            self._was_long_outage = long_silence or self._rejected_probes >= _LONG_OUTAGE_PROBES
        ratio = 1.0 if self._was_long_outage else _SETTLED_RATIO
        unit = min(_MAX_UNIT_SECONDS, max(_MIN_UNIT_SECONDS, ratio * self._send_log.rejection_latency))
        self._next = max(self._next, now - _CATCH_UP_SECONDS) + unit / self._sent
        return self._judge(now)

    def _judge(self, now: float) -> LimitState:
        """Return the state that follows from what was accepted since the first rejection of this state."""
        send_log = self._send_log
        if self._test is None or not send_log.latency or now < self._resumed + send_log.latency:
            return self  # not all that may be in flight at once is yet
        self._test.accepted_before(_settled_by(send_log, now))
        if self._test.log_odds > _UNLIMITED_LOG_ODDS:
            return self
        share = (send_log.rejected - self._rejected + 1) / (send_log.sent - self._first + 2)
        return RandomRejections(send_log, possible_share(share))

    def answered(self, record: SendRecord) -> bool:
        """Note an answer; return True once as many calls are accepted as before the server failed: it was down."""
        self.silent = self.silent and record.number <= self._rejected_first
        is_full = record.ahead >= _AS_MANY_SHARE * self._in_flight_before
        if self._test is None and record.number >= self._first and is_full:
            self._full_answers += 1
        return self._full_answers > max(_MIN_FULL_ANSWERS, self._in_flight_before)

    def also_rejected(self, rejection: Rejection) -> LimitState:
        return self.rejected(rejection, 0.0)

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        self._pauses = False
        if rejection.number < self._first:
            return self._tested(self._first_batch, rejection, pause)
        if self._test is not None:
            return self._tested(self._test, rejection, pause)
        if self._sent <= 1 or self.silent:  # not even one is accepted
            self._pauses = True
            self._rejected_probes += 1
            self._begin(rejection.now + pause)
        else:
            self._test = ShareTest(self._share, OVERLIMIT_SHARE, rejection.number + 1)
        return self

    def _tested(self, test: ShareTest, rejection: Rejection, pause: float) -> LimitState:
        test.reject(rejection.number)
        is_limited = test.log_odds >= _LIMITED_LOG_ODDS and not self.silent
        return Probing(self._send_log, rejection, pause) if is_limited else self


class RandomRejections(LimitState):
    """The server rejects some calls whatever the load: only these calls wait.

    Args:
        send_log: what has been sent.
        share: the share of all calls that is rejected.
    """

    pauses_all = False
    why = "the server refuses some calls whatever their pace"

    def __init__(self, send_log: SendLog, share: float) -> None:
        super().__init__(send_log)
        self.random_share = share
        self._test = SurgeTest(share, 1 - (1 - share) / 4, send_log.sent)

    def wait(self, now: float) -> float:
        return 0.0

    def sent(self, now: float) -> LimitState:
        return self

    def also_rejected(self, rejection: Rejection) -> LimitState:
        return self.rejected(rejection, 0.0)

    def rejected(self, rejection: Rejection, pause: float) -> LimitState:
        self._test.reject(rejection.number)
        if self._test.log_odds < _SURGE_LOG_ODDS:
            return self
        return LoadTrial(self._send_log, rejection, pause, self.random_share)
