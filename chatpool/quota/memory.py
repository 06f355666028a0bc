"""A limit that only the threads of this process share."""

from __future__ import annotations

from typing import Callable, Optional

from ..locks import new_lock
from . import arithmetic
from .arithmetic import Rates, Reservation, Standing, State

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """The state in this process' memory.

    Args:
        now: a monotonic clock.
        state: to begin with.
    """

    shown = "this process"

    def __init__(self, now: Callable[[], float], state: Optional[State] = None) -> None:
        self._now = now
        self._state = State() if state is None else state
        self._lock = new_lock()

    def reserve(self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float) -> Reservation:
        with self._lock:
            return arithmetic.reserve(
                self._state,
                self._now(),
                rates,
                requests=requests,
                tokens=tokens,
                patience=patience,
                sharer=sharer,
            )

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        with self._lock:
            arithmetic.correct(self._state, self._now(), rates, at=at, tokens=tokens)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        with self._lock:
            arithmetic.pause(self._state, self._now(), rates, seconds=seconds)

    def standing(self, rates: Rates) -> Standing:
        with self._lock:
            return arithmetic.standing(self._state, self._now(), rates)

    def close(self) -> None:
        """Nothing to let go of."""

    def after_fork_in_child(self) -> None:
        self._lock = new_lock()
