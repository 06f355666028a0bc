"""What a pool and its views share: connections, workers, counters."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Optional

from ..clock import current_clock
from ..engine import Dispatcher, Engine, register
from ..events import Listener
from ..observe import RetryLog, Statistics
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
    ) -> None:
        listeners = _checked(listeners)
        if after_call is not None and not callable(after_call):
            raise TypeError(f"after_call must be callable, got {after_call!r}")
        self._settings = settings
        self.transport = Transport(settings)
        self.statistics = Statistics()
        self.dispatcher = Dispatcher([self.statistics, RetryLog(), *listeners])
        self.engine = Engine(
            self.transport, max_workers=settings.max_workers, clock=current_clock(), after_call=after_call
        )
        register(self)

    def close(self) -> None:
        """Finish what was submitted, then end."""
        self.engine.close()

    def abort(self) -> None:
        """Give up everything and end."""
        self.engine.abort()

    def after_fork_in_child(self) -> None:
        """New connections, threads and locks in place of the parent's."""
        self._settings.auth.after_fork_in_child()
        self.statistics.after_fork_in_child()
        self.transport = Transport(self._settings)
        self.engine.after_fork_in_child(self.transport)

    def stats(self) -> PoolStats:
        """The counters at this moment."""
        queued, parked, in_flight = self.engine.counts()
        return PoolStats(queued, parked, in_flight, lines=dict(self.engine.lines()), **self.statistics.snapshot())


def _checked(listeners: Iterable[Listener]) -> Iterable[Listener]:
    listeners = tuple(listeners)
    for listener in listeners:
        if not callable(listener):
            raise TypeError(f"listeners must be callables that take an Event, got {listener!r}")
    return listeners
