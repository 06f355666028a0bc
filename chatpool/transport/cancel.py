"""Cancel tokens: one thread ends the exchanges of others, and nothing else."""

from __future__ import annotations

from typing import Protocol, Set

__all__ = ["CancelToken", "Cancelled", "Wakeable"]


class Cancelled(Exception):
    """The exchange was given up because its token was cancelled, or its transport aborted or closed."""


class Wakeable(Protocol):
    """Something that may be blocked, and can be woken from another thread."""

    def wake(self) -> None:
        """End the wait, if there is one; never raises."""


class CancelToken:
    """Cancels every exchange that runs under it, now or later.

    One token may serve any number of exchanges: a call's, or all of a run's.  It has no lock, which every exchange
    of a pool would take and which a signal handler could find taken: each step on its set is atomic by itself.
    """

    def __init__(self) -> None:
        self._cancelled = False
        self._attached: Set[Wakeable] = set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Wake every exchange under this token and refuse later ones.  From any thread, any number of times."""
        self._cancelled = True
        for waiter in self._attached.copy():
            waiter.wake()

    def attach(self, waiter: Wakeable) -> None:
        """Have ``waiter`` woken by :meth:`cancel`, until it is detached.

        Raises:
            Cancelled: the token was cancelled before.
        """
        # First this, then the look: a cancel either finds the waiter or is seen here.
        self._attached.add(waiter)
        if self._cancelled:
            self._attached.discard(waiter)
            raise Cancelled("cancelled before it was sent")

    def detach(self, waiter: Wakeable) -> None:
        """Undo :meth:`attach`; nothing happens when it was not attached."""
        self._attached.discard(waiter)

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else f"{len(self._attached)} exchanges"
        return f"CancelToken({state})"
