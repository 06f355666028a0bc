"""``PoolCore``: the engine, the listeners and the statistics that a pool shares with its views."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Optional, Sequence, Tuple

from .._engine import Dispatcher, EndpointClient, Endpoints, EndpointSpec, Engine, WorkerHooks
from .._observe import CallLog, Statistics
from .._policy.budget import BudgetTracker
from .._transport import Transport
from .._values import Waiting
from ..clock import Clock, current_clock
from ..config import Budget
from ..events import Listener
from ..types import LineStats, PoolStats
from .cache_settings import Cache

if TYPE_CHECKING:
    from .answer_cache import AnswerCache
from .fallbacks import EndpointNames

__all__ = ["PoolCore"]

_REENTRANT_WAIT_SECONDS = 0.02


class PoolCore:
    """One engine with a transport for each endpoint, and one set of listeners.

    Args:
        specs: of the pool's endpoints.
        hooks: called in the worker threads.
        listeners: callables that get every event, besides the pool's own.
        budget: None without one.
        inline_clock: the clock of a pool without workers, each of whose calls runs in the thread that makes it; None
            for one with workers.
        cache: settings of the cache, None without one.

    Attributes:
        budget: of the pool, None without one.
        engine: runs the calls.
        dispatcher: passes events to the listeners.
        statistics: the pool's counters.
        prices: of the budget; None without any.
        endpoint_names: the names of the endpoints that fallbacks may go to.
        cache: answers calls before they are queued, None without one.

    Raises:
        TypeError: a hook or a listener cannot be called.
    """

    def __init__(
        self,
        specs: Sequence[EndpointSpec],
        hooks: WorkerHooks,
        listeners: Iterable[Listener],
        budget: Optional[Budget] = None,
        inline_clock: Optional[Clock] = None,
        cache: Optional[Cache] = None,
    ) -> None:
        for name, hook in hooks._asdict().items():
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be callable, got {hook!r}")
        self.budget = budget
        self.endpoint_names = EndpointNames(None, specs)
        self.prices = (budget.prices or None) if budget is not None else None
        self.statistics = Statistics(self.prices)
        self._lines: Dict[Tuple[str, Optional[str]], LineStats] = {}
        self._waiting = Waiting()
        self.dispatcher = Dispatcher([self.statistics, CallLog(), *listeners])
        # No method of this object: the engine may outlive it, and must not keep it alive.
        connect = partial(_connect, specs, self.statistics, os.getpid())
        assert specs[0].settings is not None
        self.engine = Engine(
            connect,
            max_workers=specs[0].settings.max_workers,
            clock=inline_clock or current_clock(),
            hooks=hooks,
            budget_tracker=None if budget is None else BudgetTracker(budget),
            runs_inline=inline_clock is not None,
        )
        self.cache: Optional[AnswerCache] = None
        if cache is not None:
            from .answer_cache import AnswerCache  # most programs have none: importing SQLite takes time

            self.cache = AnswerCache(cache, self.engine)

    @property
    def base_urls(self) -> Dict[str, str]:
        """The address of each endpoint by its name in events."""
        specs = self.engine.endpoints.specs
        return {spec.name: spec.settings.base_url for spec in specs if spec.settings is not None}

    @property
    def transport(self) -> Transport:
        """Transport of the first endpoint: another one in a forked child."""
        return self.engine.transport

    def end(self, end_engine: Callable[[], None]) -> None:
        """End the engine, then close the cache; calls that go on use it again if they have to."""
        try:
            end_engine()
        finally:
            if self.cache is not None:
                self.cache.close()

    def stats(self, *, reentrant: bool = False) -> PoolStats:
        """Return the counters at this moment.

        Args:
            reentrant: whether this thread may hold the engine's lock; then ``lines`` and ``waits_for`` may be of an
                earlier moment.
        """
        within = _REENTRANT_WAIT_SECONDS
        lines = self.engine.upstream_stats_within(within) if reentrant else self.engine.upstream_stats()
        if lines is not None:
            self._lines = lines
        if not reentrant:
            self._waiting = self.engine.why_waiting()
        queued, parked, in_flight = self.engine.counts()
        lines, reason = dict(self._lines), self._waiting.reason
        return PoolStats(queued, parked, in_flight, lines=lines, waits_for=reason, **self.statistics.snapshot())


def _connect(specs: Sequence[EndpointSpec], statistics: Statistics, parent_pid: int) -> Endpoints:
    """Make the transports; in a forked child they have nothing in common with the parent's."""
    in_child = os.getpid() != parent_pid
    if in_child:
        statistics.after_fork_in_child()
    return Endpoints([_client_of(spec, in_child=in_child) for spec in specs])


def _client_of(spec: EndpointSpec, *, in_child: bool) -> EndpointClient:
    settings = spec.settings
    assert settings is not None
    if in_child:
        settings.auth.after_fork_in_child()
        settings = settings.for_forked_child()
    return EndpointClient(spec, Transport(settings))
