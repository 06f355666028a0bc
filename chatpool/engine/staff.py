"""How many workers there are."""

from __future__ import annotations

__all__ = ["Staff"]


class Staff:
    """Counts workers, at most ``max_workers`` of them.

    Not thread-safe: the scheduler holds its lock.

    Attributes:
        waiting: whether one of them waits until a call may be sent.
    """

    __slots__ = ("_alive", "_max_workers", "_starting", "waiting")

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._starting = 0  # asked for, not running yet
        self._alive = 0
        self.waiting = False

    def room(self) -> bool:
        """Whether there may be another."""
        return self._starting + self._alive < self._max_workers

    def hire(self, wanted: int) -> int:
        """Ask for ``wanted`` more; returns how many are to be started."""
        hired = max(0, min(wanted, self._max_workers - self._starting - self._alive))
        self._starting += hired
        return hired

    def started(self) -> None:
        """One of them runs."""
        self._starting = max(0, self._starting - 1)
        self._alive += 1

    def not_started(self) -> int:
        """One of them could not be started; returns how many are left."""
        self._starting = max(0, self._starting - 1)
        return self._starting + self._alive

    def ended(self) -> None:
        """One of them has nothing left to do."""
        self._alive -= 1

    def forget_starting(self) -> None:
        """Nobody knows whether those that were asked for will come: ask again.

        One that comes after all finds nothing to do and ends.
        """
        self._starting = 0
