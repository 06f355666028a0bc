"""Slots of a limit that is shared with other processes.

Getting one is I/O, which nobody does with the scheduler's lock held.  So a line that lacks a slot asks for one: the
scheduler hands the question to a worker, the worker puts it to the shared limit and brings the slot back, and the
first call of the line is sent when its moment has come.  A line has one slot at a time: who is served first is decided
among the processes, and a process that dies takes no more than one slot with it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple, Optional

from .._values import LATENESS_SECONDS, Verdict
from ..clock import Clock

if TYPE_CHECKING:
    from .._quota import SharedLimit, Slot
    from .call import Call

__all__ = ["Lease", "LeaseHolder", "LeaseRequest", "settle"]

logger = logging.getLogger("chatpool")

_AFTER_TROUBLE = 1.0  # seconds until the next call, if a slot could not even be asked for


class Lease(NamedTuple):
    """The slot that a call is sent with.

    Attributes:
        limit: who gave it.
        slot: the slot.
        tokens: what the call is expected to take, which need not be what the slot was reserved for.
        due: the slot's moment, on the pool's clock.
    """

    limit: SharedLimit
    slot: Slot
    tokens: float
    due: float

    def is_late(self, now: float) -> bool:
        """Return whether the slot can no longer be used: what is sent now could be too much for a minute."""
        return now > self.due + LATENESS_SECONDS

    def renewed(self, clock: Clock) -> Lease:
        """Give the slot back and return the grant of another.  Does I/O."""
        self.limit.correct(self.slot, 0.0)
        slot = _reserve(self.limit, self.tokens)
        return self._replace(slot=slot, due=clock.now() + slot.wait)

    def share_pause(self, seconds: float) -> None:
        """The call was refused for rate, and its pool sends nothing for so long: neither do the others.  Does I/O."""
        if seconds > 0:
            self.limit.pause(seconds)

    def settle(self, verdict: Optional[Verdict]) -> None:
        """The call has ended, or (None) was not sent: correct what was reserved.  Does I/O."""
        used = self.tokens
        if verdict is None or verdict.kind == "throttled":
            used = 0.0
        elif verdict.usage is not None and verdict.usage.total_tokens:
            used = verdict.usage.total_tokens
        self.limit.correct(self.slot, used)


class LeaseRequest(NamedTuple):
    """What a worker has to ask for.

    Attributes:
        grants: of the line that lacks a slot.
        tokens: what its first call is expected to take.
        unused: the slot that came to nothing.
    """

    grants: LeaseHolder
    tokens: float
    unused: Optional[Slot] = None

    def ask(self) -> Slot:
        """Ask; does I/O, and never raises: a line whose question is lost would wait for ever."""
        if self.unused is not None:
            self.grants.limit.correct(self.unused, 0.0)
        return _reserve(self.grants.limit, self.tokens)

    def granted(self, clock: Clock) -> Lease:
        """Ask, for a call that is in no queue."""
        slot = self.ask()
        return Lease(self.grants.limit, slot, self.tokens, clock.now() + slot.wait)


def _reserve(limit: SharedLimit, tokens: float) -> Slot:
    try:
        return limit.reserve(1.0, tokens)
    except Exception:
        from .._quota import Slot  # here it has long been imported; most pools share nothing

        logger.exception("a slot of the shared limit could not be asked for; one call a second is sent")
        return Slot(True, _AFTER_TROUBLE, 0.0, tokens)


def settle(call: Call, verdict: Optional[Verdict]) -> Optional[Lease]:
    """The attempt of ``call`` has ended, or (None) was not made; returns the grant that it was made with, if any."""
    grant, call.grant = call.grant, None
    if grant is not None:
        grant.settle(verdict)
    return grant


class LeaseHolder:
    """The slot of one line.

    Not thread-safe: the scheduler holds its lock.

    Args:
        limit: who gives the slots.
    """

    __slots__ = ("_asking", "_due", "_slot", "limit")

    def __init__(self, limit: SharedLimit) -> None:
        self.limit = limit
        self._slot: Optional[Slot] = None
        self._due = -math.inf
        self._asking = False

    def wait(self, now: float) -> float:
        """Seconds until the slot's moment; 0 if one is to be asked for, ``inf`` while that is being done."""
        if self._asking:
            return math.inf
        return max(0.0, self._due - now) if self._usable(now) else 0.0

    def lacking(self, now: float) -> bool:
        """Whether somebody has to ask for a slot before the next call can be sent."""
        return not self._asking and not self._usable(now)

    def _usable(self, now: float) -> bool:
        return self._slot is not None and now <= self._due + LATENESS_SECONDS

    def question(self, tokens: float) -> LeaseRequest:
        """What to ask for; the answer goes to :meth:`answered`."""
        unused, self._slot = self._slot, None
        self._asking = True
        return LeaseRequest(self, tokens, unused)

    def answered(self, slot: Slot, now: float) -> None:
        """The slot has come."""
        self._slot, self._due = slot, now + slot.wait
        self._asking = False

    def take(self, now: float, tokens: float) -> Optional[Lease]:
        """The slot for a call of so many tokens that is sent now; None if its moment has not come."""
        slot = self._slot
        if slot is None or self._asking or not self._usable(now) or self._due > now:
            return None
        self._slot = None
        return Lease(self.limit, slot, tokens, self._due)
