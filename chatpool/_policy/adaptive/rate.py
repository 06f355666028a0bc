"""Rate controller: a rate of sending just above what the server accepts, and probes if it limits the rate at all."""

from __future__ import annotations

import math
from collections import deque
from typing import Deque, Iterator, Optional, Tuple

from .send_log import Rejection, SendLog
from .sequential_tests import ShareTest, possible_share

__all__ = ["RateController", "RateProbe"]


_MIN_PER_SECOND = 0.1  # sends
_CATCH_UP_SECONDS = 0.005  # a thread that wakes up late makes up for at most this

# What a rejection leaves of the rate.  Another pool may use the server as well: cutting and growing again leads to
# equal shares, and the sooner the larger the cut.  Most token buckets hold enough to make up for it.
_CUT_RATIO = 0.9
_MIN_CUT_RATIO = 0.5  # of one rejection: counts may be off by one or two
_HORIZON_SECONDS = 3.0  # a rejection is remembered for this time
_MIN_INTERVAL_SECONDS = 0.002  # two rejections closer together give no rate

_LONG_PAUSE_SECONDS = 0.25  # a server that asks for more paces its callers: ...
_HOLD_PAUSES = 10.0  # ... growth waits for this multiple of the pause, and a failed rate probe costs another pause

# Growth, as a share of the rate in a unit of time (a second, or longer where rejections take long to come back).
_SEARCH_GROWTH_SHARE = 2.0  # while nothing is known
_GROWTH_SHARE = 0.10  # after a rejection; doubles with each unit of time without another ...
_MAX_GROWTH_SHARE = 1.0  # ... up to this
_MAX_GROWTH_EXPONENT = 6.0

_HEADROOM_RATIO = 2.0  # the rate never grows beyond this multiple of what is really sent ...
_HEADROOM_PER_SECOND = 4.0  # ... and this

# Slow senders grow by a larger share than fast ones, so that two pools on one quota come closer to each other.
_REFERENCE_PER_SECOND = 10.0
_CONVERGENCE_EXPONENT = 0.7  # 0 would be the same share for all, 1 the same increase per second for all
_MAX_GROWTH_FACTOR, _MIN_GROWTH_FACTOR = 3.0, 0.4


class RateController:
    """Sends evenly, a little faster from second to second, slower after a rejection.

    Args:
        rate: sends a second to begin with.
        last_sent: when the last attempt was sent.
        now: the time.

    Attributes:
        rate: sends a second.
    """

    __slots__ = (
        "_grown_at",
        "_is_known",
        "_next",
        "_quiet_from",
        "_rejected_at",
        "_resumed",
        "rate",
    )

    def __init__(self, rate: float, last_sent: float, now: float) -> None:
        self.rate = max(1.0, rate)
        self._next = last_sent + 1 / self.rate
        self._grown_at = self._quiet_from = now
        self._is_known = False  # True once a rejection has shown what the rate is
        self._resumed = -math.inf
        self._rejected_at: Deque[Tuple[float, int]] = deque(maxlen=64)  # (time, accepted before) of the latest ones

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt may be sent."""
        return max(0.0, self._next - now)

    def sent(self, now: float, factor: float = 1.0) -> None:
        """Note that an attempt is sent; the next may follow ``factor`` times as soon as at the rate."""
        self._next = max(self._next, now - _CATCH_UP_SECONDS) + 1 / (self.rate * factor)

    # -- growing ----------------------------------------------------------------------------------------

    def grow(self, now: float, send_rate: int, mean_rate: float, rejection_latency: float) -> None:
        """Let the rate grow for the time that has passed.

        Args:
            now: the time.
            send_rate: attempts sent in the last second.
            mean_rate: attempts accepted per second over a longer time.
            rejection_latency: seconds until a rejection comes back; nothing grows faster than that.
        """
        passed = min(0.5, now - self._grown_at)
        self._grown_at = now
        if passed > 0 and now >= self._quiet_from and self.rate < _HEADROOM_RATIO * send_rate + _HEADROOM_PER_SECOND:
            unit = max(1.0, 2 * rejection_latency)
            self.rate *= 1 + self._growth(now - self._quiet_from, mean_rate, unit) * passed / unit

    def _growth(self, quiet: float, mean_rate: float, unit: float) -> float:
        """Return the share of the rate by which it grows in a unit of time, ``quiet`` seconds after a rejection."""
        if not self._is_known or (quiet > unit and self.rate < 0.9 * mean_rate):
            return _SEARCH_GROWTH_SHARE
        growth = min(_MAX_GROWTH_SHARE, _GROWTH_SHARE * math.pow(2.0, min(_MAX_GROWTH_EXPONENT, quiet / unit)))
        factor = math.pow(_REFERENCE_PER_SECOND / self.rate, _CONVERGENCE_EXPONENT)
        return growth * min(_MAX_GROWTH_FACTOR, max(_MIN_GROWTH_FACTOR, factor))

    # -- being rejected ----------------------------------------------------------------------------------

    def rejected(self, rejection: Rejection, pause: float, rejection_latency: float, random_share: float = 0.0) -> None:
        """Cut the rate to what the server accepts; nothing is sent for ``pause`` seconds.

        Args:
            rejection: the rejection.
            pause: seconds.
            rejection_latency: seconds until a rejection comes back.
            random_share: the share of calls that is rejected whatever the load.
        """
        asked_long = rejection.hint is not None and pause > _LONG_PAUSE_SECONDS
        if random_share:
            # One rejection proves nothing.
            bounds = iter((self.rate * _CUT_RATIO, rejection.accept_rate / (1 - random_share) + 1.0))
        else:
            bounds = self._bounds(rejection, pause)
        self.rate = max(_MIN_PER_SECOND, _MIN_CUT_RATIO * self.rate, min(bounds))
        self._is_known = True
        self._note(rejection, pause)
        self._quiet_from = rejection.now + max(_HOLD_PAUSES * pause if asked_long else 0.0, 2 * rejection_latency)

    def begin(self, rejection: Rejection, pause: float) -> None:
        """Pause for the rejection that showed that it is the rate; the next one will show which rate."""
        self._note(rejection, pause)
        self._quiet_from = rejection.now + pause

    def _note(self, rejection: Rejection, pause: float) -> None:
        resumed = rejection.now + pause
        self._next = max(self._next, resumed)
        self._resumed = resumed
        self._rejected_at.append((resumed if pause > _LONG_PAUSE_SECONDS else rejection.now, rejection.accepted))

    def _bounds(self, rejection: Rejection, pause: float) -> Iterator[float]:
        yield self.rate * _CUT_RATIO
        if rejection.sent_at - self._resumed >= 1:  # in a second without a pause, what it accepted is its rate
            yield rejection.accept_rate + 1.0
        yield from self._refilled(rejection, pause)

    def _refilled(self, rejection: Rejection, pause: float) -> Iterator[float]:
        """Yield the rates between two rejections: the server refilled at most what it accepted, and one."""
        known = self._rejected_at
        if pause > _LONG_PAUSE_SECONDS:
            known.clear()  # the length of the pause says more than the time since the others
        while known and known[0][0] < rejection.sent_at - _HORIZON_SECONDS:
            known.popleft()
        for time, accepted in known:
            if rejection.sent_at - time > _MIN_INTERVAL_SECONDS:
                yield (max(0, rejection.accepted - accepted) + 1) / (rejection.sent_at - time)


_FIRST_PROBE_REJECTIONS = 4.0  # before the first probe; one before the next after a probe that passed ...
_RARER_RATIO = 4.0  # ... and this multiple after each that failed
_LONG_PAUSE_WEIGHT = 0.34  # a rejection with a long pause counts as this part of one ...
_LOW_RATE_SHARE = 0.3  # ... except at less than this share of the mean rate of accepted calls

_MIN_PROBE_CALLS, _MAX_PROBE_CALLS = 8, 20
_PASSED_LOG_ODDS = -3.0  # that it is the rate, at which a probe has passed ...
_FAILED_LOG_ODDS = 2.0  # ... or failed ...
_MIN_FAILURES = 2  # ... with as many rejections: a single one may be chance
_SETTLED_RATIO = 2.0  # times as long as a rejection takes: what is not rejected by then is accepted

# Where a probe passes, rejections at rates below this share of it were random, if there were enough stretches of them.
_FAR_BELOW_SHARE = 0.6
_MIN_STRETCHES = 8
_MAX_STRETCHES = 16


class RateProbe:
    """Probes if the server limits the rate: after some rejections a few calls are sent at three times the rate.

    A server that limits the rate has just shown that it has nothing left, so it rejects most of them; if it accepts
    them, the rejections before were random.

    Args:
        send_log: what has been sent.
    """

    FACTOR = 3.0

    def __init__(self, send_log: SendLog) -> None:
        self._send_log = send_log
        self._began, self._rejected = send_log.sent, send_log.rejected
        self._rejections_per_probe = self._rejections_left = _FIRST_PROBE_REJECTIONS
        self._test: Optional[ShareTest] = None  # while a probe is in flight
        self._first = 0
        self._rate = 0.0
        self._marked = (send_log.sent, send_log.rejected)
        # From one rejection to the next: the rate, and what was sent and rejected.
        self._stretches: Deque[Tuple[float, int, int]] = deque(maxlen=_MAX_STRETCHES)

    def factor(self) -> float:
        """Return how many times as soon as usual the next call may follow."""
        is_probing = self._test is not None and self._send_log.sent - self._first < _MAX_PROBE_CALLS
        return self.FACTOR if is_probing else 1.0

    def rejected(self, rejection: Rejection, rate: float, pause: float) -> bool:
        """Note a rejection at this rate; return True if it belongs to a probe that has not failed."""
        if self._test is not None and rejection.number >= self._first:
            self._test.reject(rejection.number)
            failed = self._test.rejected >= _MIN_FAILURES and self._test.log_odds >= _FAILED_LOG_ODDS
            if failed:
                self._end(passed=False)
            return not failed
        if rejection.number >= self._marked[0]:
            self._note(rate)
        if self._test is None:
            is_low = rate < _LOW_RATE_SHARE * self._send_log.mean_rate(rejection.now)
            self._rejections_left -= 1.0 if pause <= _LONG_PAUSE_SECONDS or is_low else _LONG_PAUSE_WEIGHT
            if self._rejections_left <= 0:
                self._begin(rate, pause)
        return False

    def _note(self, rate: float) -> None:
        """End a stretch; rejections of what was sent in it that come back later begin no new one."""
        send_log, (sent, rejected) = self._send_log, self._marked
        self._stretches.append((rate, send_log.sent - sent, max(1, send_log.rejected - rejected)))
        self._marked = (send_log.sent, send_log.rejected)

    def _begin(self, rate: float, pause: float) -> None:
        """Begin a probe with the next calls, without those that the pause refills."""
        send_log = self._send_log
        share = possible_share((send_log.rejected - self._rejected + 0.5) / (send_log.sent - self._began + 5))
        self._rate = rate
        self._first = send_log.sent + math.ceil(rate * pause)
        self._test = ShareTest(share, 1 - (1 - share) / self.FACTOR, self._first)

    def _end(self, *, passed: bool) -> None:
        self._test = None
        self._marked = (self._send_log.sent, self._send_log.rejected)
        self._rejections_per_probe = 1.0 if passed else self._rejections_per_probe * _RARER_RATIO
        self._rejections_left = self._rejections_per_probe

    def passed(self, now: float) -> float:
        """Return the rate at which a probe has just passed, 0 without one."""
        test = self._test
        if test is None:
            return 0.0
        test.accepted_before(self._send_log.sent_by(now - _SETTLED_RATIO * self._send_log.rejection_latency))
        passed = test.seen >= _MIN_PROBE_CALLS and test.log_odds <= _PASSED_LOG_ODDS
        if passed or test.seen >= _MAX_PROBE_CALLS:
            self._end(passed=passed)
        return self.FACTOR * self._rate if passed else 0.0

    def random_share(self, rate: float) -> float:
        """Return the share of calls that is rejected at random, where this rate is accepted; 0 where it is unknown."""
        low = [(sent, rejected) for at, sent, rejected in self._stretches if at <= _FAR_BELOW_SHARE * rate]
        if len(low) < _MIN_STRETCHES:
            return 0.0
        return possible_share(sum(rejected for _, rejected in low) / max(1, sum(sent for sent, _ in low)))
