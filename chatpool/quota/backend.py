"""What a shared limit needs of the place where its state is."""

from __future__ import annotations

from typing import Protocol

from .arithmetic import Rates, Reservation, Standing

__all__ = ["Backend", "Unavailable"]


class Unavailable(Exception):
    """The state cannot be reached now; the message says why, and shows no secret."""


class Backend(Protocol):
    """A place that several processes share.  Methods do I/O, take at most about a second, and are thread-safe.

    Raises:
        Unavailable: the place cannot be reached now.
    """

    shown: str
    """What the place is called in messages."""

    def reserve(self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float) -> Reservation:
        """See :func:`~chatpool.quota.arithmetic.reserve`."""

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        """See :func:`~chatpool.quota.arithmetic.correct`."""

    def pause(self, rates: Rates, *, seconds: float) -> None:
        """See :func:`~chatpool.quota.arithmetic.pause`."""

    def standing(self, rates: Rates) -> Standing:
        """See :func:`~chatpool.quota.arithmetic.standing`."""

    def close(self) -> None:
        """Let go of files and connections; the next use opens them again."""

    def after_fork_in_child(self) -> None:
        """Share nothing with the parent's files and connections; locks may be held by nobody."""
