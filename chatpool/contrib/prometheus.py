"""Metrics of a pool for Prometheus: counters and histograms of its calls, gauges of its state.

Needs the extra ``prometheus``.  Counters and histograms come from the pool's events.  The gauges are read from
``pool.stats()`` at each scrape; in multiprocess mode, in which a scrape asks one process of many, once a second while
calls are open.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, Dict, Iterator, List, Optional, Tuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from .. import ChatPool, Event, PoolStats

__all__ = ["Collector"]

_CALL_BUCKETS_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_QUEUE_BUCKETS_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_UPDATE_SECONDS = 1.0
_OTHER = "other"

_HTTP_OK = 200
_REASONS = {
    "timed out": "timeout",
    "APITimeoutError": "timeout",
    "DeadlineExceededError": "timeout",
    "connection failed": "connection",
    "APIConnectionError": "connection",
}
"""Values of the label ``reason`` by ``Event.reason``, of attempts without a status."""


class Collector:
    """Report the calls of ``pool``, and of all views of it, to Prometheus from now on.  Make one per pool.

    Several pools may report to one registry: ``name`` tells them apart.  Pools of the same name are added up, so that
    one that replaces another goes on with its counters.

    Args:
        pool: the pool. It is not kept alive.
        registry: where the metrics are registered. Default: the global one.
        name: the label ``pool``.
        max_models: how many names of models become labels; those that come later are counted as ``"other"``. So
            names that users of a program make up cannot fill the memory of Prometheus.

    Raises:
        ValueError: ``max_models`` is below 1.
    """

    kinds = frozenset({"queued", "sent", "retrying", "reasking", "falling_back", "succeeded", "failed"})

    def __init__(
        self,
        pool: ChatPool,
        registry: CollectorRegistry = REGISTRY,
        *,
        name: str = "default",
        max_models: int = 50,
    ) -> None:
        if max_models < 1:
            raise ValueError(f"max_models must be at least 1, got {max_models!r}")
        self.name = name
        self._max_models = max_models
        self._models: Dict[str, None] = {}
        self._core = weakref.ref(pool._core)  # a view may be gone before its pool
        self._metrics = _metrics_of(registry)
        self._metrics.gauges.collectors.add(self)
        pool.add_listener(self)

    def __call__(self, event: Event) -> None:
        if event.kind in ("succeeded", "failed"):
            self._count_call(event)
        if event.kind == "sent":
            if event.queued is not None:
                self._metrics.queue_seconds.labels(self.name, self.model(event.model)).observe(event.queued)
        elif event.attempt and (event.wait is None or event.kind != "failed"):  # otherwise its retry was counted
            self._metrics.attempts.labels(self.name, event.endpoint or "", _reason(event)).inc()
        if event.usage is not None:
            tokens, model = self._metrics.tokens, self.model(event.model)
            tokens.labels(self.name, model, "input").inc(event.usage.prompt_tokens)
            tokens.labels(self.name, model, "output").inc(event.usage.completion_tokens)
        self._metrics.gauges.touch()

    def _count_call(self, event: Event) -> None:
        model, outcome = self.model(event.model), event.reason or event.kind
        self._metrics.calls.labels(self.name, model, event.endpoint or "", outcome).inc()
        self._metrics.call_seconds.labels(self.name, model).observe(event.total or 0.0)

    def model(self, name: Optional[str]) -> str:
        """Return the label of a model."""
        if name is None:
            return ""
        if name not in self._models:
            if len(self._models) >= self._max_models:
                return _OTHER
            self._models[name] = None
        return name

    def stats(self) -> Optional[PoolStats]:
        """Return the pool's counters, None if the pool is gone."""
        core = self._core()
        return None if core is None else core.stats()


class _Metrics:
    """The metrics of one registry; all pools that report to it share them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "chatpool_calls",
            "Calls that have ended, by outcome: succeeded, or the class of their error.",
            ["pool", "model", "endpoint", "outcome"],
            registry=registry,
        )
        self.attempts = Counter(
            "chatpool_attempts",
            "Requests that were sent, by their result: ok, a status, unusable_answer, timeout, connection, given_up.",
            ["pool", "endpoint", "reason"],
            registry=registry,
        )
        self.tokens = Counter(
            "chatpool_tokens",
            "Tokens of all answers, by direction: input or output.",
            ["pool", "model", "direction"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "chatpool_call_seconds",
            "Seconds from the making of a call to its end, with all its waits.",
            ["pool", "model"],
            buckets=_CALL_BUCKETS_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "chatpool_queue_seconds",
            "Seconds from the making of a call to its first request.",
            ["pool", "model"],
            buckets=_QUEUE_BUCKETS_SECONDS,
            registry=registry,
        )
        self.gauges = _Gauges()
        registry.register(self.gauges)


_all_metrics: weakref.WeakKeyDictionary[CollectorRegistry, _Metrics] = weakref.WeakKeyDictionary()
_making_metrics = threading.Lock()


def _metrics_of(registry: CollectorRegistry) -> _Metrics:
    with _making_metrics:
        if registry not in _all_metrics:
            _all_metrics[registry] = _Metrics(registry)
        return _all_metrics[registry]


class _Gauges:
    """The gauges of one registry, which take their values from the pools.

    Attributes:
        collectors: of the pools.
    """

    def __init__(self) -> None:
        self.collectors: weakref.WeakSet[Collector] = weakref.WeakSet()
        upstream = ["pool", "model", "endpoint"]
        self._in_flight = _gauge("in_flight", "Requests under way.", ["pool"])
        self._queued = _gauge("queued", "Calls that wait for a worker.", ["pool"])
        self._parked = _gauge("parked", "Calls that wait for their next attempt.", ["pool"])
        self._rate = _gauge(
            "rate_per_second", "Calls a second that are sent at most; 0 while no limit is known.", upstream
        )
        self._paused = _gauge("paused", "1 while nothing is sent: the server is down, or has asked to wait.", upstream)
        self._shown: Dict[Tuple[Any, Tuple[str, ...]], float] = {}
        self._updates = os.environ.get("PROMETHEUS_MULTIPROC_DIR") is not None
        self._pid = os.getpid()
        self._updating = threading.Lock()

    # -- a scrape of this process --------------------------------------------------------------------------

    def describe(self) -> Iterator[Any]:
        """Return the metrics without their values."""
        for gauge in (self._in_flight, self._queued, self._parked, self._rate, self._paused):
            yield from gauge.describe()

    def collect(self) -> Iterator[Any]:
        """Return the metrics with the values of this moment."""
        self._set()
        for gauge in (self._in_flight, self._queued, self._parked, self._rate, self._paused):
            yield from gauge.collect()

    def _set(self) -> bool:
        """Set all gauges; return whether they may change without an event."""
        values: Dict[Tuple[Any, Tuple[str, ...]], float] = dict.fromkeys(self._shown, 0.0)
        for collector in list(self.collectors):
            for gauge, labels, value in self._values_of(collector):
                values[gauge, labels] = values.get((gauge, labels), 0.0) + value
        for (gauge, labels), value in values.items():
            gauge.labels(*labels).set(value)
        self._shown = values
        return any(value for (gauge, _), value in values.items() if gauge is not self._rate)

    def _values_of(self, collector: Collector) -> Iterator[Tuple[Any, Tuple[str, ...], float]]:
        stats = collector.stats()
        if stats is None:
            return
        yield self._in_flight, (collector.name,), stats.in_flight
        yield self._queued, (collector.name,), stats.queued
        yield self._parked, (collector.name,), stats.parked
        for (endpoint, model), line in stats.lines.items():
            labels = (collector.name, collector.model(model), endpoint)
            yield self._rate, labels, line.rate or 0.0
            yield self._paused, labels, line.paused_until is not None

    # -- multiprocess mode ---------------------------------------------------------------------------------

    def touch(self) -> None:
        """Note that something has happened: in multiprocess mode the gauges are set until nothing is open."""
        if not self._updates:
            return
        if self._pid != os.getpid():  # a thread of the parent process held the lock
            self._pid, self._updating = os.getpid(), threading.Lock()
        if self._updating.acquire(blocking=False):
            threading.Thread(target=self._update, name="chatpool-gauges", daemon=True).start()

    def _update(self) -> None:
        is_open = True
        while is_open:
            time.sleep(_UPDATE_SECONDS)
            is_open = self._set()
        self._updating.release()
        if self._set():  # by an event that came before the release
            self.touch()


def _gauge(name: str, text: str, labels: List[str]) -> Any:
    return Gauge(f"chatpool_{name}", text, labels, registry=None, multiprocess_mode="livesum")


def _reason(event: Event) -> str:
    """Return the label of the result of an attempt."""
    if event.kind == "succeeded":
        return "ok"
    if event.status is not None:
        return "unusable_answer" if event.status == _HTTP_OK else str(event.status)
    return _REASONS.get(event.reason or "", "given_up")
