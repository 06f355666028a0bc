"""An opinion on the kind of limit that a server has."""

from __future__ import annotations

from typing import Optional

from .tally import Refusal, Tally, Ticket

__all__ = ["Phase"]


class Phase:
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

    def __init__(self, tally: Tally) -> None:
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

    def sent(self, now: float) -> Phase:
        """An attempt goes out."""
        raise NotImplementedError

    def accepted(self, ticket: Ticket, now: float) -> Phase:
        """An attempt that was sent after the latest refusal was answered."""
        return self

    def answered(self, ticket: Ticket) -> bool:
        """An attempt was answered, whenever it was sent; returns whether that shows that the server was only down."""
        return False

    def expected(self, refusal: Refusal, pause: float) -> bool:
        """Whether nothing follows from a refusal, because some calls were sent to find out whether they are refused."""
        return False

    def refused(self, refusal: Refusal, pause: float) -> Phase:
        """An attempt that was sent after the latest refusal was refused; a pause of so many seconds is due."""
        raise NotImplementedError

    def refused_too(self, refusal: Refusal) -> Phase:
        """An attempt that was sent before the latest refusal came back was refused as well."""
        return self
