"""A limit that processes share, and this process's share of it while they cannot reach each other.

The engine uses a :class:`SharedLimit`.  Its state is in a :class:`Backend`: a file, Redis, or while neither can
be reached the memory of this process.
"""

from __future__ import annotations

import logging
import os
import random
import time
import weakref
from typing import Callable, NamedTuple, Optional, Protocol, TypeVar

from .._locks import new_lock
from .._policy.day_window import DayLimits, DayWindow
from . import gcra
from .day import DayCharge, reserve_in_day
from .gcra import LimitStatus, Rate, Rates, ReserveResult, State

__all__ = ["Backend", "LocalBackend", "Reservation", "SharedLimit", "Unavailable"]


logger = logging.getLogger("chatpool")

_T = TypeVar("_T")

_ASSUMED_SHARERS = 4  # until the backend has told how many there are
# After a failure the backend is left alone, twice as long after each further one.
_MIN_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 15.0
_LEAST_WAIT_SECONDS = 0.05  # where another thread asks at this moment


class Unavailable(Exception):
    """The state cannot be reached now; the message says why, and shows no secret."""


class Backend(Protocol):
    """State of a limit in a place that several processes share.

    Methods do I/O, take at most about a second, and are thread-safe.

    Attributes:
        display_name: name of the place in messages.

    Raises:
        Unavailable: the place cannot be reached now.
    """

    display_name: str

    def reserve(self, rates: Rates, *, requests: float, tokens: float, max_wait: float, sharer: float) -> ReserveResult:
        """See :func:`~chatpool._quota.gcra.reserve` and :func:`~chatpool._quota.day.reserve_in_day`."""

    def correct(self, rates: Rates, *, at: float, tokens: float, day: Optional[DayCharge] = None) -> None:
        """See :func:`~chatpool._quota.gcra.correct`; ``day`` is what changes in the day's count."""

    def pause(self, rates: Rates, *, seconds: float) -> None:
        """See :func:`~chatpool._quota.gcra.pause`."""

    def status(self, rates: Rates) -> LimitStatus:
        """See :func:`~chatpool._quota.gcra.status`."""

    def close(self) -> None:
        """Close files and connections; the next use opens them again."""

    def after_fork_in_child(self) -> None:
        """Share no files and connections with the parent; locks may have been left taken."""


class Reservation(NamedTuple):
    """A moment reserved for a call.

    Attributes:
        granted: whether it was reserved; otherwise nothing was taken, and ``wait`` is how long it would have to wait.
        wait: seconds until it, from the return of :meth:`SharedLimit.reserve`.
        at: the moment, on the clock of ``backend``.
        tokens: number of tokens it was reserved for.
        backend: where it was reserved; a correction goes there.
        day_at: the moment, on the clock of the day.
    """

    granted: bool
    wait: float
    at: float
    tokens: float
    backend: Optional[Backend] = None
    day_at: float = 0.0


_limits: weakref.WeakSet[SharedLimit] = weakref.WeakSet()


class SharedLimit:
    """Requests and tokens per minute and per day of one endpoint and model, shared with other processes.

    Every method may do I/O for up to a second, so none is to be called with a lock held.  None raises because of the
    backend: while that cannot be reached, there is one warning in the log, and this process keeps to its share of the
    limit, or reserves nothing where a day is limited.  Thread-safe; in a forked child it counts as one more sharer.

    Args:
        backend: where the state is.
        requests_per_minute, tokens_per_minute, burst: as in :class:`~chatpool.Limits`.
        day: the limits per day, None without any.
        sharers: number of processes to assume until the backend tells it, and where there are more than it counts.
        now: a monotonic clock, for this process's own share.

    Attributes:
        day_left: what the day had left at the last reservation; all of it before the first, and None without limits
            per day.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        requests_per_minute: Optional[float] = None,
        tokens_per_minute: Optional[float] = None,
        burst: float = 1.0,
        day: Optional[DayLimits] = None,
        sharers: Optional[int] = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._rates = Rates.of(requests_per_minute, tokens_per_minute, burst, day)
        self.day_left = day
        self._owed = [0.0, 0.0]  # requests and tokens of the day that could not be told yet
        self._now = now
        self._sharers = sharers or _ASSUMED_SHARERS
        self._stated_sharers = sharers or 0
        self._paused_until = 0.0  # on this process's clock
        self._fallback: Optional[LocalBackend] = None  # while the backend cannot be reached
        self._retry_at = self._retry_after = 0.0
        self._fallback_lock = new_lock()
        self._choose_sharer_id()
        _limits.add(self)

    def _choose_sharer_id(self) -> None:
        self._sharer = float(random.SystemRandom().getrandbits(52))

    def after_fork_in_child(self) -> None:
        """Become another sharer; a thread of the parent may have held a lock."""
        self._fallback_lock = new_lock()
        self._choose_sharer_id()
        self._backend.after_fork_in_child()
        if self._fallback is not None:
            self._fallback.after_fork_in_child()

    def reserve(self, requests: float = 1.0, tokens: float = 0.0, *, max_wait: float = 1e9) -> Reservation:
        """Reserve the next moment at which so much may be sent.

        Args:
            requests: number of requests.
            tokens: number of tokens that they are expected to take.
            max_wait: seconds; if the moment is further away, nothing is reserved.
        """

        def reserve(backend: Backend, rates: Rates) -> Reservation:
            result = backend.reserve(rates, requests=requests, tokens=tokens, max_wait=max_wait, sharer=self._sharer)
            if result.day_left is not None:
                self.day_left = result.day_left
            if backend is self._backend:
                all_counted = result.sharers < gcra.MAX_SHARERS
                self._sharers = result.sharers if all_counted else max(result.sharers, self._stated_sharers)
            return Reservation(result.granted, result.wait, result.at, tokens, backend, result.day_at)

        return self._run(reserve) if self._rates.day is None else self._reserve_in_day(reserve)

    def _reserve_in_day(self, reserve: Callable[[Backend, Rates], Reservation]) -> Reservation:
        """Reserve from a day; nothing while its count cannot be reached: nobody knows what the others have sent."""
        fallback = self._fallback
        if fallback is None or self._may_retry():
            try:
                reservation = reserve(self._backend, self._rates)
            except Unavailable as error:
                self._fall_back(error, again=fallback is not None)
            else:
                if fallback is not None:
                    self._recover()
                return reservation
        return Reservation(False, max(_LEAST_WAIT_SECONDS, self._retry_at - self._now()), 0.0, 0.0)

    def correct(self, reservation: Reservation, used: float, *, sent: bool = True) -> None:
        """Charge the tokens that the call has used (0 if the server rejected it); a minute's worth at most.

        Args:
            reservation: of the call.
            used: its tokens.
            sent: whether it was sent; otherwise a day has room for one request more.
        """
        difference = self._difference(reservation, used)
        charge = self._day_charge(reservation, used, sent=sent)
        if not reservation.granted or not (difference or charge):
            return
        fallback = self._fallback
        if reservation.backend is self._backend and fallback is None:
            self._charge(reservation.at, difference, charge)
        elif reservation.backend is self._backend:
            self._owe(charge)
        elif reservation.backend is fallback and fallback is not None:
            fallback.correct(self._fallback_rates(), at=reservation.at, tokens=difference)

    def _difference(self, reservation: Reservation, used: float) -> float:
        tokens = self._rates.tokens
        return min(used, tokens.limit) - reservation.tokens if tokens.emission else 0.0

    def _day_charge(self, reservation: Reservation, used: float, *, sent: bool) -> Optional[DayCharge]:
        limits = self._rates.day
        if limits is None:
            return None
        tokens = min(used, limits.tokens) - reservation.tokens
        return DayCharge(reservation.day_at, 0.0 if sent else -1.0, tokens) if tokens or not sent else None

    def _charge(self, at: float, tokens: float, charge: Optional[DayCharge]) -> None:
        try:
            self._backend.correct(self._rates, at=at, tokens=tokens, day=charge)
        except Unavailable as error:
            self._owe(charge)
            if tokens > 0:  # tokens that are not given back only leave more to the others
                self._fall_back(error, again=False)

    def _owe(self, charge: Optional[DayCharge]) -> None:
        """Keep what a day has to be charged with until its count can be reached."""
        if charge is not None:
            with self._fallback_lock:
                self._owed[0] += max(0.0, charge.requests)
                self._owed[1] += max(0.0, charge.tokens)

    def pause(self, seconds: float) -> None:
        """Let no sharer send anything for so long: a server has rejected a call with this hint."""
        self._paused_until = max(self._paused_until, self._now() + seconds)
        self._run(lambda backend, rates: backend.pause(rates, seconds=seconds))

    def status(self) -> LimitStatus:
        """Return the status of the limit."""
        return self._run(lambda backend, rates: backend.status(rates))

    @property
    def is_shared(self) -> bool:
        """True if the other processes could be reached at the last try."""
        return self._fallback is None

    def close(self) -> None:
        """Close files and connections; the next use opens them again."""
        self._backend.close()

    # -- while the backend cannot be reached ----------------------------------------------------------------

    def _run(self, operation: Callable[[Backend, Rates], _T]) -> _T:
        fallback = self._fallback
        if fallback is None or self._may_retry():
            try:
                result = operation(self._backend, self._rates)
            except Unavailable as error:
                fallback = self._fall_back(error, again=fallback is not None)
            else:
                if fallback is not None:
                    self._recover()
                return result
        return operation(fallback, self._fallback_rates())

    def _may_retry(self) -> bool:
        """Return whether this caller shall try the backend again."""
        with self._fallback_lock:
            now = self._now()
            if now < self._retry_at:
                return False
            self._retry_at = now + self._retry_after
            return True

    def _fall_back(self, error: Unavailable, *, again: bool) -> LocalBackend:
        with self._fallback_lock:
            self._retry_after = min(2 * self._retry_after, _MAX_RETRY_SECONDS) if again else _MIN_RETRY_SECONDS
            self._retry_at = self._now() + self._retry_after
            if self._fallback is None:
                keeps_to = f"this process keeps to 1/{self._sharers} of the limit"
                if self._rates.day is not None:
                    keeps_to = "nothing is sent, as the others' share of the day is not known"
                logger.warning("shared limit: %s; until it is back %s", error, keeps_to)
                self._fallback = LocalBackend(self._now, self._fallback_state())
            return self._fallback

    def _fallback_state(self) -> State:
        """Return a state without a burst, as that may just have been used, and with the pause this process knows."""
        state, now = State(), self._now()
        gcra.pause(state, now, self._fallback_rates(), seconds=max(0.0, self._paused_until - now))
        return state

    def _fallback_rates(self) -> Rates:
        """Return the rates of this process alone."""
        rates = self._rates
        return Rates(_divided(rates.requests, self._sharers), _divided(rates.tokens, self._sharers))

    def _recover(self) -> None:
        with self._fallback_lock:
            if self._fallback is None:
                return
            self._fallback = None
            logger.warning("shared limit: %s is back", self._backend.display_name)
            owed, self._owed = self._owed, [0.0, 0.0]
        if any(owed):
            self._charge(0.0, 0.0, DayCharge(0.0, *owed))


def _divided(rate: Rate, sharers: int) -> Rate:
    return Rate(rate.limit / sharers, rate.emission * sharers, rate.burst / sharers)


def _after_fork_in_child() -> None:
    for limit in list(_limits):
        limit.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class LocalBackend:
    """The state in the memory of this process.

    Args:
        now: a monotonic clock.
        state: the state to begin with.
    """

    display_name = "this process"

    def __init__(self, now: Callable[[], float], state: Optional[State] = None) -> None:
        self._now = now
        self._state = State() if state is None else state
        self._day = DayWindow()
        self._lock = new_lock()

    def reserve(self, rates: Rates, *, requests: float, tokens: float, max_wait: float, sharer: float) -> ReserveResult:
        ask = {"requests": requests, "tokens": tokens, "max_wait": max_wait, "sharer": sharer}
        with self._lock:
            now = self._now()
            if rates.day is not None:
                return reserve_in_day(self._state, self._day, now, now, rates, **ask)
            return gcra.reserve(self._state, now, rates, **ask)

    def correct(self, rates: Rates, *, at: float, tokens: float, day: Optional[DayCharge] = None) -> None:
        with self._lock:
            now = self._now()
            if day is not None:
                self._day.advance(now)
                self._day.correct(*day)
            if tokens:
                gcra.correct(self._state, now, rates, at=at, tokens=tokens)

    def pause(self, rates: Rates, *, seconds: float) -> None:
        with self._lock:
            gcra.pause(self._state, self._now(), rates, seconds=seconds)

    def status(self, rates: Rates) -> LimitStatus:
        with self._lock:
            return gcra.status(self._state, self._now(), rates)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def after_fork_in_child(self) -> None:
        self._lock = new_lock()
