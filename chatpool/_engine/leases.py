"""Leases: the slots of a limit that is shared with other processes.

Acquiring a lease is I/O and must not run under the scheduler's lock.  The scheduler therefore returns a
:class:`LeaseRequest` to a worker, which acquires the slot and reports it back; the first call of the upstream is sent
when the slot's moment has come.  An upstream holds one slot at a time: the processes are served in order, and a
process that dies takes no more than one slot with it.

A slot that was not used is given back, so that a limit per day loses nothing by it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple, Optional

from .._values import LATENESS_SECONDS, Verdict
from ..clock import Clock

if TYPE_CHECKING:
    from .._quota import Reservation, SharedLimit

__all__ = ["Lease", "LeaseHolder", "LeaseRequest"]

logger = logging.getLogger("chatpool")

_FALLBACK_WAIT_SECONDS = 1.0  # until the next call, if a slot could not be reserved

_REFUSED_SECONDS = 60.0  # for which nothing is asked of a day that had no room: others may give something back


class LeaseHolder:
    """The slot of one upstream.

    Not thread-safe: the scheduler holds its lock.

    Args:
        limit: the shared limit that grants the slots.
    """

    __slots__ = ("_day_has_room_at", "_due_at", "_is_requested", "_refused_until", "_slot", "limit")

    def __init__(self, limit: SharedLimit) -> None:
        self.limit = limit
        self._slot: Optional[Reservation] = None
        self._due_at = -math.inf
        self._is_requested = False
        self._refused_until = self._day_has_room_at = -math.inf

    def day_wait(self, now: float) -> float:
        """Return the seconds until the day has room, as far as is known; 0 where it may have room now."""
        return max(0.0, self._day_has_room_at - now) if now < self._refused_until else 0.0

    def day_has_room_in(self, now: float) -> float:
        """Return the same, also where the day is asked again before that."""
        return max(0.0, self._day_has_room_at - now)

    def wait(self, now: float) -> float:
        """Return the seconds until the slot's moment; 0 if a lease must be requested, ``inf`` while it is acquired."""
        if self._is_requested:
            return math.inf
        return max(0.0, self._due_at - now) if self._is_usable(now) else 0.0

    def needs_lease(self, now: float) -> bool:
        """Return whether a lease must be requested before the next call can be sent."""
        return not self._is_requested and not self._is_usable(now)

    def _is_usable(self, now: float) -> bool:
        return self._slot is not None and now <= self._due_at + LATENESS_SECONDS

    def request(self, tokens: float) -> LeaseRequest:
        """Return the request for a lease; the acquired slot goes to :meth:`granted`."""
        unused, self._slot = self._slot, None
        self._is_requested = True
        return LeaseRequest(self, tokens, unused)

    def granted(self, slot: Reservation, now: float) -> None:
        """Keep the slot that a worker has acquired; none where the day had no room."""
        self._is_requested = False
        if slot.granted:
            self._slot, self._due_at = slot, now + slot.wait
            self._refused_until = self._day_has_room_at = -math.inf
        else:
            self.refused(slot.wait, now)

    def refused(self, wait: float, now: float) -> None:
        """Note that the day has no room for ``wait`` seconds."""
        self._refused_until, self._day_has_room_at = now + min(wait, _REFUSED_SECONDS), now + wait

    def close(self) -> None:
        """Give back a slot that was not used, and close files and connections.  Does I/O."""
        unused, self._slot = self._slot, None
        if unused is not None:
            self.limit.correct(unused, 0.0, sent=False)
        self.limit.close()

    def take(self, now: float, tokens: float) -> Optional[Lease]:
        """Take the slot for a call of ``tokens`` that is sent now; None if its moment has not come."""
        slot = self._slot
        if slot is None or self._is_requested or not self._is_usable(now) or self._due_at > now:
            return None
        self._slot = None
        return Lease(self.limit, slot, tokens, self._due_at)


class LeaseRequest(NamedTuple):
    """A request for a lease, to be carried out by a worker.

    Attributes:
        holder: the holder that needs the lease.
        tokens: the tokens that its first call is expected to take.
        unused: a slot that was not used and is given back.
    """

    holder: LeaseHolder
    tokens: float
    unused: Optional[Reservation] = None

    def acquire(self) -> Reservation:
        """Acquire a slot.  Does I/O and never raises: an upstream whose request is lost would wait for ever."""
        if self.unused is not None:
            self.holder.limit.correct(self.unused, 0.0, sent=False)
        return _reserve(self.holder.limit, self.tokens)

    def acquire_lease(self, clock: Clock) -> Lease:
        """Acquire a lease for a call that is in no queue; its slot may not be granted.  Does I/O and never raises."""
        slot = self.acquire()
        return Lease(self.holder.limit, slot, self.tokens, clock.now() + slot.wait)


class Lease(NamedTuple):
    """The slot that a call is sent with.

    Attributes:
        limit: the shared limit that granted it.
        slot: the slot.
        tokens: the tokens that the call is expected to take, which may differ from what the slot was reserved for.
        due_at: the slot's moment, on the pool's clock.
    """

    limit: SharedLimit
    slot: Reservation
    tokens: float
    due_at: float

    def is_late(self, now: float) -> bool:
        """Return whether the slot can no longer be used: a call sent now could be too much for a minute."""
        return now > self.due_at + LATENESS_SECONDS

    def renewed(self, clock: Clock) -> Lease:
        """Give the slot back and return the lease of another.  Does I/O."""
        self.limit.correct(self.slot, 0.0, sent=False)
        slot = _reserve(self.limit, self.tokens)
        return self._replace(slot=slot, due_at=clock.now() + slot.wait)

    def share_pause(self, seconds: float) -> None:
        """Pause the other processes too: the call was refused for rate, and its pool pauses for ``seconds``.

        Does I/O.
        """
        if seconds > 0:
            self.limit.pause(seconds)

    def count_another(self) -> None:
        """Count one more request of the call, which does not wait for its moment.  Does I/O."""
        _reserve(self.limit, 0.0)

    def settle(self, verdict: Optional[Verdict]) -> None:
        """Correct the reservation after a call has ended, or (None) was not sent.  Does I/O."""
        used = self.tokens
        if verdict is None or verdict.kind == "throttled":
            used = 0.0
        elif verdict.usage is not None and verdict.usage.total_tokens:
            used = verdict.usage.total_tokens
        self.limit.correct(self.slot, used, sent=verdict is not None)


def _reserve(limit: SharedLimit, tokens: float) -> Reservation:
    try:
        return limit.reserve(1.0, tokens)
    except Exception:
        from .._quota import Reservation  # already imported by now; most pools share nothing and never import it

        logger.exception("a slot of the shared limit could not be asked for; one call a second is sent")
        return Reservation(True, _FALLBACK_WAIT_SECONDS, 0.0, tokens)
