"""Cancel tokens: one thread ends the exchanges of others, and nothing else."""

from __future__ import annotations

import threading
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

    One token may serve any number of exchanges: a call's, or all of a run's.
    """

    def __init__(self) -> None:
        # Reentrant, so that a signal handler may cancel while its thread is inside.
        self._lock = threading.RLock()
        self._cancelled = False
        self._attached: Set[Wakeable] = set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Wake every exchange under this token and refuse later ones.  From any thread, any number of times."""
        with self._lock:
            self._cancelled = True
            attached = list(self._attached)
        for waiter in attached:
            waiter.wake()

    def attach(self, waiter: Wakeable) -> None:
        """Have ``waiter`` woken by :meth:`cancel`, until it is detached.

        Raises:
            Cancelled: the token was cancelled before.
        """
        with self._lock:
            if self._cancelled:
                raise Cancelled("cancelled before it was sent")
            self._attached.add(waiter)

    def detach(self, waiter: Wakeable) -> None:
        """Undo :meth:`attach`; nothing happens when it was not attached."""
        with self._lock:
            self._attached.discard(waiter)

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else f"{len(self._attached)} exchanges"
        return f"CancelToken({state})"
