"""What the methods of a pool share."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Optional

from ..config import RetryPolicyLike, TimeoutLike
from ..reentrancy import waits_for_calls
from ..types import ChatRequest, Results
from .call_settings import CallSettings
from .consume import Outcomes, collect
from .core import Core
from .options import Defaults
from .runs import RunSettings, start_run
from .singular import send, wait_for

__all__ = ["PoolBase"]


class PoolBase:
    """Connections, workers and counters, and the defaults of this view of them."""

    _core: Core
    _defaults: Defaults
    _plain: Optional[CallSettings] = None  # of calls that say nothing of their own

    def _how(
        self,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        priority: Optional[int] = None,
    ) -> CallSettings:
        if timeout is None and retry is None and not headers and not query and priority is None:
            if self._plain is None:
                self._plain = CallSettings.of(self._core, self._defaults, None, None, None, None, None)
            return self._plain
        return CallSettings.of(self._core, self._defaults, timeout, retry, headers, query, priority)

    @waits_for_calls
    def _wait(self, item: Any, request: ChatRequest, how: CallSettings) -> Any:
        with self._core.engine.waiting():
            return wait_for(self._core, send(self._core, item, request, how), how.timeout.total)

    def _collect(
        self, items: Iterable[Any], make: Callable[[Any], ChatRequest], settings: RunSettings, how: CallSettings
    ) -> Results:
        started = self._core.engine.clock.now()
        run, bar = start_run(self._core, items, make, settings, how)
        window = settings.window(self._core.engine.max_workers)
        return collect(run, window=window, on_error=settings.on_error, bar=bar, started=started)

    def _lazy(
        self,
        items: Iterable[Any],
        make: Callable[[Any], ChatRequest],
        settings: RunSettings,
        how: CallSettings,
        *,
        in_order: bool,
    ) -> Outcomes:
        run, bar = start_run(self._core, items, make, settings, how)
        return Outcomes(run, bar, in_order=in_order)
