"""Nothing limits the pace, as far as is known."""

from __future__ import annotations

from .phase import Phase
from .ramp import Ramp
from .tally import Refusal, Tally, Ticket
from .trials import SlowStart

__all__ = ["Free"]


class Free(Phase):
    """Nothing has been refused: send, but not all at once.

    Args:
        tally: what has been sent.
    """

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self.ramp = Ramp()

    def wait(self, now: float) -> float:
        return self.ramp.wait(now, self._tally.in_flight)

    def sent(self, now: float) -> Phase:
        self.ramp.sent(now, self._tally.in_flight)
        return self

    def accepted(self, ticket: Ticket, now: float) -> Phase:
        self.ramp.answered = True
        return self

    def refused(self, refusal: Refusal, pause: float) -> Phase:
        return SlowStart(self._tally, refusal, pause)
