"""Concurrency controller: a limit of calls in flight that stays just at what the server accepts, shared fairly."""

from __future__ import annotations

import math

from .send_log import SendLog

__all__ = ["ConcurrencyController", "FairShareYield"]


_YIELD_SHARE = 0.1  # of the calls in flight
_MAX_REJECTIONS_PER_YIELD = 12  # between two yields, so that they cost a pool alone 1 % at most ...
_MIN_REJECTIONS_PER_YIELD = 1  # ... and after one that was used; twice as many after each that was not


class FairShareYield:
    """Decides how many of the calls in flight to yield to other clients for a moment, after a rejection.

    A full server rejects new calls of any client, not of the one that has most in flight: of two pools, the one that
    was first would keep all slots.  So each yields a share of its slots.  If no other client takes the slots, it takes
    them back and yields less often; if one does, it yields again at the next rejection.  The larger one yields more
    than the smaller one, so both end up with about the same number (AIMD; Chiu and Jain, 1989).

    Attributes:
        in_flight_before: the calls in flight before the current yield, 0 without one.
        kept_in_flight: how many of these were kept.
    """

    __slots__ = ("_rejections", "_rejections_per_yield", "in_flight_before", "kept_in_flight")

    def __init__(self) -> None:
        self.in_flight_before = self.kept_in_flight = 0
        self._rejections_per_yield = _MAX_REJECTIONS_PER_YIELD
        self._rejections = 0  # since the last yield

    def rejected(self, in_flight: int, *, by_others: bool = False) -> int:
        """Note a rejection with ``in_flight`` calls in flight.

        Args:
            in_flight: calls in flight.
            by_others: True if another client may have caused it.

        Returns:
            How many of the calls in flight to yield.
        """
        self.end()
        if by_others:
            self._rejections_per_yield = _MIN_REJECTIONS_PER_YIELD
        self._rejections += 1
        yielded = int(_YIELD_SHARE * in_flight) if self._rejections >= self._rejections_per_yield else 0
        if yielded:
            self._rejections = 0
            self._rejections_per_yield = min(_MAX_REJECTIONS_PER_YIELD, 2 * self._rejections_per_yield)
            self.in_flight_before, self.kept_in_flight = in_flight, in_flight - yielded
        return yielded

    def end(self) -> None:
        """End the yield: as many calls as before are in flight again, or will not be."""
        self.in_flight_before = self.kept_in_flight = 0


# At the limit before one more call is tried; twice as long after each probe that was rejected ...
_PROBE_INTERVAL_SECONDS = 1.0
_LONG_PROBE_INTERVAL_SECONDS = 1.5  # ... up to this, or the time of some answers if that is longer ...
_PROBE_INTERVAL_ANSWERS = 20
_MAX_PROBE_INTERVAL_SECONDS = 4.0  # ... but not beyond this ...
_MIN_PROBE_INTERVAL_SECONDS = 0.3  # ... and this after a probe that was accepted
_MAX_STEP_SHARE = 0.25  # of the limit; steps double as long as they are accepted
_UNBOUND_SECONDS = 1.0  # a limit that was not reached for so long is tried anew from then on

# The distance of a probe from the last send, as a share of the mean time between two answers at the limit tried: a
# limit of the rate would accept it, so a rejection is evidence for a limit of the calls in flight.
_PROBE_DISTANCE_RATIO = 0.9
_MAX_LATENESS_DISTANCES = 3.0  # a thread that is later than this does not make up for it


class ConcurrencyController:
    """Holds calls back at a limit, and tries now and then if more are accepted.

    Args:
        limit: calls in flight.
        probe_interval: seconds at the limit before the first probe.
        in_doubt: True while it is unknown if there is such a limit: then all sends keep the distance of a probe, and
            nothing is yielded to other clients.

    Attributes:
        limit: calls in flight, a probe included.
        probing: True if the limit was raised and nothing has been rejected since.
        confirmed: the limit that held until it was raised last.
        max_accepted: the most calls in flight that are known to have been accepted since the last rejection.
    """

    __slots__ = (
        "_bound_at",
        "_fair_share",
        "_first_probe_interval",
        "_in_doubt",
        "_next",
        "_probe_at",
        "_probe_interval",
        "_spaced_until",
        "_step",
        "confirmed",
        "limit",
        "max_accepted",
        "probing",
    )

    def __init__(self, limit: int, *, probe_interval: float = _PROBE_INTERVAL_SECONDS, in_doubt: bool = False) -> None:
        self.limit = max(1, limit)
        self.confirmed = self.max_accepted = 0
        self.probing = False
        self._in_doubt = in_doubt
        self._fair_share = FairShareYield()
        self._first_probe_interval = self._probe_interval = probe_interval
        self._step = 1
        self._probe_at = self._spaced_until = math.inf
        self._bound_at = self._next = -math.inf

    @property
    def is_yielding(self) -> bool:
        """True if fewer than the server accepts are in flight, or have just been."""
        return self._fair_share.in_flight_before > 0

    # -- sending ----------------------------------------------------------------------------------------

    def wait(self, now: float, send_log: SendLog) -> float:
        """Return the seconds until an attempt may be sent, if nothing ends before."""
        if send_log.in_flight > self.limit:
            return math.inf  # it was lowered: something has to end first
        if send_log.in_flight == self.limit:
            wait = self._wait_for_probe(now, send_log)
            if wait > 0:
                return wait
            self._raise(now, send_log)
        trying = self.probing and send_log.in_flight >= self.confirmed and now < self._spaced_until
        return max(0.0, self._next - now) if self._in_doubt or trying else 0.0

    def _wait_for_probe(self, now: float, send_log: SendLog) -> float:
        longest = _UNBOUND_SECONDS + send_log.rejection_latency + self._probe_interval
        unbound = now - self._bound_at > longest and not self.is_yielding
        if math.isinf(self._probe_at) or unbound:
            self._probe_at = now + self._probe_interval
        self._bound_at = now
        return max(0.0, self._probe_at - now)

    def _raise(self, now: float, send_log: SendLog) -> None:
        if self.is_yielding and self.probing:
            self._end_yield()
        elif self.probing:  # the last probe was accepted: sooner and further
            shortest = min(_MIN_PROBE_INTERVAL_SECONDS, self._first_probe_interval)
            self._probe_interval = max(shortest, 2 * send_log.rejection_latency)
            self._step = min(2 * self._step, max(1, int(self.limit * _MAX_STEP_SHARE)))
        self.confirmed = self.limit
        self.limit += self._step
        self.probing = True
        self._probe_at = math.inf
        # What was yielded has been accepted before: after this time no more distance is kept on the way back to it.
        self._spaced_until = now + self._probe_interval if self.is_yielding else math.inf

    def _end_yield(self) -> None:
        """Take back what was yielded: no other client has used it."""
        self.limit = max(self.limit, self._fair_share.in_flight_before)
        self._fair_share.end()
        self.probing = False
        self._step = 1

    def sent(self, now: float, send_log: SendLog) -> None:
        """Note that an attempt is sent."""
        distance = _PROBE_DISTANCE_RATIO * send_log.latency / self.limit
        late = now - self._next
        # A thread that wakes up late makes up for it with the next send, or the limit would never be reached and tried.
        made_good = min(late, distance / 2) if 0 < late <= _MAX_LATENESS_DISTANCES * distance else 0.0
        self._next = now - made_good + distance

    def accepted(self, in_flight: int) -> None:
        """Note that an attempt was accepted with ``in_flight`` in flight, itself included."""
        self.max_accepted = max(self.max_accepted, in_flight)
        if self.is_yielding and in_flight >= self._fair_share.in_flight_before:
            self._end_yield()

    # -- being rejected ----------------------------------------------------------------------------------

    def contradicts(self, in_flight: int) -> bool:
        """Return True if a rejection with ``in_flight`` in flight is not due to this limit: it has accepted more."""
        return in_flight < 0.9 * self.max_accepted

    def used_by_others(self, in_flight: int) -> bool:
        """Return True if a rejection with ``in_flight`` in flight only shows that another client uses yielded slots."""
        return self._fair_share.kept_in_flight <= in_flight < self._fair_share.in_flight_before

    def rejected(self, in_flight: int, latency: float) -> None:
        """Lower the limit after a rejection with ``in_flight`` in flight, of calls that take ``latency`` seconds.

        Once it is known that there is such a limit, part of it is yielded for a moment.
        """
        fewer = in_flight < self._fair_share.in_flight_before  # than before the yield
        lost = not self.probing and in_flight < self.max_accepted  # another client took the slot of a call that ended
        self.lower(in_flight)
        if fewer:
            self._probe_interval = _PROBE_INTERVAL_SECONDS
        elif self.probing:
            some_answers = _PROBE_INTERVAL_ANSWERS * latency / self.limit
            longest = min(_MAX_PROBE_INTERVAL_SECONDS, max(_LONG_PROBE_INTERVAL_SECONDS, some_answers))
            self._probe_interval = min(longest, max(_PROBE_INTERVAL_SECONDS, 2 * self._probe_interval))
        yielded = 0 if self._in_doubt else self._fair_share.rejected(self.limit, by_others=fewer or lost)
        self.limit -= yielded
        self._step = max(1, yielded)
        self._probe_at = math.inf
        self.probing = False
        self.max_accepted = 0

    def lower(self, in_flight: int) -> None:
        """Lower the limit to ``in_flight``, unless it is lower."""
        self.limit = max(1, min(self.limit, in_flight))
