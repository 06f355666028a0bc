"""What a pool and its views share: connections, workers, counters."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Callable, Iterable, Optional

from ..clock import current_clock
from ..config import Budget, Limits
from ..engine import Dispatcher, Engine
from ..events import Listener
from ..observe import RetryLog, Statistics
from ..policy.spending import Spending
from ..transport import Transport, TransportSettings
from ..types import PoolStats

__all__ = ["Core"]


class Core:
    """One transport, one engine, one set of listeners."""

    def __init__(
        self,
        settings: TransportSettings,
        after_call: Optional[Callable[[], Any]],
        listeners: Iterable[Listener],
        limits: Optional[Limits] = None,
        budget: Optional[Budget] = None,
    ) -> None:
        listeners = _checked(listeners)
        if after_call is not None and not callable(after_call):
            raise TypeError(f"after_call must be callable, got {after_call!r}")
        self.statistics = Statistics()
        self.dispatcher = Dispatcher([self.statistics, RetryLog(), *listeners])
        # Not a method of this object: the engine may outlive it, and must not keep it alive.
        connect = partial(_connect, settings, self.statistics, os.getpid())
        self.engine = Engine(
            connect,
            max_workers=settings.max_workers,
            clock=current_clock(),
            after_call=after_call,
            limits=limits,
            spending=None if budget is None else Spending(budget),
        )

    @property
    def transport(self) -> Transport:
        """Where exchanges go: another one in a forked child."""
        return self.engine.transport

    def stats(self) -> PoolStats:
        """The counters at this moment."""
        queued, parked, in_flight = self.engine.counts()
        return PoolStats(queued, parked, in_flight, lines=dict(self.engine.lines()), **self.statistics.snapshot())


def _connect(settings: TransportSettings, statistics: Statistics, made_in: int) -> Transport:
    """The transport; in a forked child it has nothing in common with the parent's."""
    if os.getpid() == made_in:
        return Transport(settings)
    settings.auth.after_fork_in_child()
    statistics.after_fork_in_child()
    return Transport(settings.for_forked_child())


def _checked(listeners: Iterable[Listener]) -> Iterable[Listener]:
    listeners = tuple(listeners)
    for listener in listeners:
        if not callable(listener):
            raise TypeError(f"listeners must be callables that take an Event, got {listener!r}")
    return listeners
