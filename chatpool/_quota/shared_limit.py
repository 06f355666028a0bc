"""A limit that processes share, with a safe share of it for the time in which they cannot reach each other.

What a shared limit needs of the place where its state is.

A limit that only the threads of this process share.
"""

from __future__ import annotations

import logging
import os
import random
import time
import weakref
from typing import Callable, NamedTuple, Optional, Protocol, TypeVar

from .._locks import new_lock
from . import gcra
from .gcra import LimitStatus, Rate, Rates, SlotReservation, State, pause

__all__ = ["Backend", "MemoryBackend", "SharedLimit", "Slot", "Unavailable"]


class Unavailable(Exception):
    """The state cannot be reached now; the message says why, and shows no secret."""


class Backend(Protocol):
    """A place that several processes share.  Methods do I/O, take at most about a second, and are thread-safe.

    Raises:
        Unavailable: the place cannot be reached now.
    """

    shown: str
    """What the place is called in messages."""

    def reserve(
        self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float
    ) -> SlotReservation:
        """See :func:`~chatpool._quota.gcra.reserve`."""

    def correct(self, rates: Rates, *, at: float, tokens: float) -> None:
        """See :func:`~chatpool._quota.gcra.correct`."""

    def pause(self, rates: Rates, *, seconds: float) -> None:
        """See :func:`~chatpool._quota.gcra.pause`."""

    def standing(self, rates: Rates) -> LimitStatus:
        """See :func:`~chatpool._quota.gcra.status`."""

    def close(self) -> None:
        """Let go of files and connections; the next use opens them again."""

    def after_fork_in_child(self) -> None:
        """Share nothing with the parent's files and connections; locks may be held by nobody."""


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

    def reserve(
        self, rates: Rates, *, requests: float, tokens: float, patience: float, sharer: float
    ) -> SlotReservation:
        with self._lock:
            return gcra.reserve(
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
            gcra.correct(self._state, self._now(), rates, at=at, tokens=tokens)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        with self._lock:
            gcra.pause(self._state, self._now(), rates, seconds=seconds)

    def standing(self, rates: Rates) -> LimitStatus:
        with self._lock:
            return gcra.status(self._state, self._now(), rates)

    def close(self) -> None:
        """Nothing to let go of."""

    def after_fork_in_child(self) -> None:
        self._lock = new_lock()


logger = logging.getLogger("chatpool")

_T = TypeVar("_T")

_limits: weakref.WeakSet[SharedLimit] = weakref.WeakSet()

_ASSUMED_SHARERS = 4  # as long as nobody has told how many there are
_LOOK_AGAIN = 1.0  # seconds after a failure; twice as long after each further one, up to ...
_LOOK_AGAIN_AT_MOST = 15.0


class Slot(NamedTuple):
    """A moment reserved for a call.

    Attributes:
        granted: whether it was reserved; otherwise nothing was taken, and ``wait`` is what would have to be waited.
        wait: seconds until it, from the return of :meth:`SharedLimit.reserve`.
        at: the moment on the clock of whoever gave it.
        tokens: for how many tokens.
        giver: who gave it; a correction goes there.
    """

    granted: bool
    wait: float
    at: float
    tokens: float
    giver: Optional[Backend] = None


class SharedLimit:
    """Requests and tokens per minute of one endpoint and model, shared with other processes.

    Every method may do I/O for up to a second, so none is to be called with a lock held.  None raises because of the
    place where the state is: while that cannot be reached, there is one warning in the log, and this process keeps
    to its share of the limit.  Thread-safe; in a forked child it counts as one more sharer.

    Args:
        backend: where the state is.
        requests_per_minute, tokens_per_minute, burst: as in :class:`~chatpool.Limits`.
        sharers: how many processes to reckon with before the first answer of the backend's.
        now: a monotonic clock, for this process' own share.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        requests_per_minute: Optional[float] = None,
        tokens_per_minute: Optional[float] = None,
        burst: float = 1.0,
        sharers: Optional[int] = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._rates = Rates.of(requests_per_minute, tokens_per_minute, burst)
        self._now = now
        self._sharers = sharers or _ASSUMED_SHARERS
        self._paused_until = 0.0  # on this process' clock
        self._own: Optional[MemoryBackend] = None  # while the backend cannot be reached
        self._look_at = self._look_after = 0.0
        self._outage_lock = new_lock()
        self._name_process()
        _limits.add(self)

    def _name_process(self) -> None:
        self._sharer = float(random.SystemRandom().getrandbits(52))

    def after_fork_in_child(self) -> None:
        """Another process, another sharer; a thread of the parent's may have held a lock."""
        self._outage_lock = new_lock()
        self._name_process()
        self._backend.after_fork_in_child()
        if self._own is not None:
            self._own.after_fork_in_child()

    # -- what is asked ----------------------------------------------------------------------------------

    def reserve(self, requests: float = 1.0, tokens: float = 0.0, *, patience: float = 1e9) -> Slot:
        """Reserve the next moment at which so much may be sent.

        Args:
            requests: how many.
            tokens: how many they are expected to take.
            patience: seconds; if the moment is further away, nothing is reserved.
        """

        def ask(backend: Backend, rates: Rates) -> Slot:
            found = backend.reserve(rates, requests=requests, tokens=tokens, patience=patience, sharer=self._sharer)
            if backend is self._backend:
                self._sharers = found.sharers
            return Slot(found.granted, found.wait, found.at, tokens, backend)

        return self._ask(ask)

    def correct(self, slot: Slot, used: float) -> None:
        """The call of ``slot`` has taken ``used`` tokens (0 where the server refused it); a minute's worth at most."""
        difference = min(used, self._rates.tokens.limit) - slot.tokens
        if not (difference and slot.granted and self._rates.tokens.emission):
            return
        own = self._own
        if slot.giver is self._backend and own is None:
            try:
                self._backend.correct(self._rates, at=slot.at, tokens=difference)
            except Unavailable as error:
                if difference > 0:  # what was not given back only leaves more to the others
                    self._out(error, again=False)
        elif slot.giver is own and own is not None:
            own.correct(self._share(), at=slot.at, tokens=difference)

    def pause(self, seconds: float) -> None:
        """Nobody sends anything for so long: a server has refused a call with this hint."""
        self._paused_until = max(self._paused_until, self._now() + seconds)
        self._ask(lambda backend, rates: backend.pause(rates, seconds=seconds))

    def state(self) -> LimitStatus:
        """How it stands."""
        return self._ask(lambda backend, rates: backend.standing(rates))

    @property
    def shared(self) -> bool:
        """Whether the others could be reached at the last try."""
        return self._own is None

    def close(self) -> None:
        """Let go of files and connections; the next use opens them again."""
        self._backend.close()

    # -- while the backend cannot be reached --------------------------------------------------------------

    def _ask(self, question: Callable[[Backend, Rates], _T]) -> _T:
        own = self._own
        if own is None or self._may_look():
            try:
                answer = question(self._backend, self._rates)
            except Unavailable as error:
                own = self._out(error, again=own is not None)
            else:
                if own is not None:
                    self._back()
                return answer
        return question(own, self._share())

    def _may_look(self) -> bool:
        """Whether it is this caller's turn to see whether the backend is back."""
        with self._outage_lock:
            now = self._now()
            if now < self._look_at:
                return False
            self._look_at = now + self._look_after
            return True

    def _out(self, error: Unavailable, *, again: bool) -> MemoryBackend:
        with self._outage_lock:
            self._look_after = min(2 * self._look_after, _LOOK_AGAIN_AT_MOST) if again else _LOOK_AGAIN
            self._look_at = self._now() + self._look_after
            if self._own is None:
                logger.warning(
                    "shared limit: %s; until it is back this process keeps to 1/%d of the limit", error, self._sharers
                )
                self._own = MemoryBackend(self._now, self._state_of_share())
            return self._own

    def _state_of_share(self) -> State:
        """Nothing to burst with, as it may just have been used, and the pause that this process knows of."""
        state, now = State(), self._now()
        pause(state, now, self._share(), seconds=max(0.0, self._paused_until - now))
        return state

    def _back(self) -> None:
        with self._outage_lock:
            if self._own is not None:
                self._own = None
                logger.warning("shared limit: %s is back", self._backend.shown)

    def _share(self) -> Rates:
        """The rates of this process alone."""
        return Rates(*(_divided(rate, self._sharers) for rate in self._rates))


def _divided(rate: Rate, sharers: int) -> Rate:
    return Rate(rate.limit / sharers, rate.emission * sharers, rate.burst / sharers)


def _after_fork_in_child() -> None:
    for one in list(_limits):
        one.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
