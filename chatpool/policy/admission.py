"""How fast calls are sent to a server whose limits nobody has stated: found out by what it refuses."""

from __future__ import annotations

import math
from typing import Optional

from .phase import Phase
from .phases import Free, Trusting
from .tally import Tally, Ticket

__all__ = ["AdmissionControl"]

_LONGEST_PAUSE = 120.0  # seconds

# The pause after a refusal without a hint: about the time of one send, within these (seconds); twice as long for
# each refusal in a row with nothing accepted between.
_SHORTEST_OWN_PAUSE = 0.03
_LONGEST_OWN_PAUSE = 1.0
_LARGEST_EXPONENT = 6


class AdmissionControl:
    """Admits calls to one (endpoint, model), as many and as fast as it accepts.

    Not thread-safe: the caller holds the lock.

    Attributes:
        tally: counts of what was sent.
        phase: what is known about the server's limit.
    """

    __slots__ = ("_accepted", "_in_vain", "_news_from", "_paused_until", "phase", "tally")

    def __init__(self) -> None:
        self.tally = Tally()
        self.phase: Phase = Free(self.tally)
        self._news_from = -math.inf
        self._paused_until = -math.inf
        self._accepted = -1  # before the latest refusal
        self._in_vain = 0  # refusals in a row with nothing accepted between

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may be sent; 0 for now, ``inf`` for not before something ends."""
        if now < self._paused_until:
            return self._paused_until - now
        return self.phase.wait(now)

    def sent(self, now: float) -> Ticket:
        """An attempt goes out; the ticket is handed back when it returns."""
        self.phase = self.phase.sent(now)
        return self.tally.send(now)

    def accepted(self, ticket: Ticket, now: float) -> None:
        """The attempt was answered."""
        self.tally.answer(ticket, now)
        if ticket.sent_at >= self._news_from:
            self.phase.accepted(ticket, now)

    def ended(self) -> None:
        """An attempt has ended in a way that says nothing about limits."""
        self.tally.give_up()

    def refused(self, ticket: Ticket, now: float, hint: Optional[float]) -> None:
        """The attempt was refused, with a hint of so many seconds.

        Calls that were on their way when a refusal came back had been sent too fast as well: only what is sent
        after it tells something new.
        """
        refusal = self.tally.refuse(ticket, now, hint)
        news = refusal.sent_at >= self._news_from
        if news:
            self._in_vain = self._in_vain + 1 if refusal.accepted <= self._accepted else 0
            self._accepted = refusal.accepted
        pause = self._pause(hint)
        if news:
            self._news_from = now
            self.phase = self.phase.refused(refusal, pause)
        else:
            self.phase.refused_too(refusal)
        if self.phase.pauses_all:
            self._paused_until = max(self._paused_until, now + pause)

    @property
    def limited(self) -> bool:
        """Whether the server's refusals limit the pace."""
        return not isinstance(self.phase, (Free, Trusting))

    def trust(self) -> None:
        """The limit is known, so that few refusals say nothing about it."""
        if isinstance(self.phase, Free):
            self.phase = Trusting(self.tally, self.phase.ramp)

    def restart(self) -> None:
        """The server was down, and is back: the ramp begins anew, unless a limit is known."""
        if not self.limited:
            self.phase = type(self.phase)(self.tally)

    def _pause(self, hint: Optional[float]) -> float:
        if hint is not None:
            return min(hint, _LONGEST_PAUSE)
        rate = self.phase.rate
        pause = max(_SHORTEST_OWN_PAUSE, 0.0 if rate is None else 1 / rate)
        return min(_LONGEST_OWN_PAUSE, pause * 2.0 ** min(self._in_vain, _LARGEST_EXPONENT))

    def paused_for(self, now: float) -> float:
        """Seconds until anything is sent again after a refusal; 0 when it is not paused."""
        return max(0.0, self._paused_until - now)
