"""Runs over rows that somebody else makes requests of, and keeps the outcomes of: what batch files are run by."""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Mapping, Optional
from urllib.parse import urlsplit

from ..engine import CallOptions, Engine
from ..types import ChatRequest, Outcome
from .base import PoolBase
from .connect import PUBLIC_URL
from .kept import KeptRun
from .options import RequestMaker, body_fields

__all__ = ["RowsRun", "has_version_in_url", "needs_model", "request_maker", "start_rows"]

_STRIDE = 32  # rows read before they are sent
_LOOK_EVERY = 0.2  # seconds


class RowsRun(KeptRun):
    """A run of rows.

    Args:
        engine, items, prepare, options, window: as for :class:`KeptRun`.
        keep: keeps an outcome; called in workers.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
        *,
        keep: Callable[[Outcome[Any]], None],
    ) -> None:
        super().__init__(engine, items, prepare, options, window)
        self._keep = keep
        self.lazy = True  # an input of which no more is sent need not be read

    def keep(self, outcome: Outcome[Any]) -> None:
        self._keep(outcome)

    def take(self, at_least: int = 0) -> List[Outcome[Any]]:
        """Outcomes that are ready, about five times a second: as they are kept already, nobody waits for each.

        An empty list means that the run has ended.
        """
        at_least = at_least or max(1, self._window // 4)
        while True:
            self._feed(at_least)
            self._doze(at_least)
            ready = self._take_ready()
            if ready or self._fed == self._taken:
                return ready

    def _doze(self, at_least: int) -> None:
        with self._changed:
            if self._enough(at_least):
                return
            self._wake_at, self._sleeping = at_least, True
            try:
                self._changed.wait(_LOOK_EVERY)  # in plain time: it is people who look
            finally:
                self._sleeping = False

    def read_ahead(self) -> None:
        """Read several rows before sending them: for inputs that never keep one waiting."""
        self._stride = max(self._stride, _STRIDE)


def start_rows(
    pool: PoolBase,
    rows: Iterable[Any],
    prepare: Callable[[Any], ChatRequest],
    keep: Callable[[Outcome[Any]], None],
) -> RowsRun:
    """A run over ``rows``; ``prepare`` makes the whole request of one, ``keep`` keeps its outcome."""
    core = pool._core
    options = pool._how(None, None, None, None).of_run(core.dispatcher, None)
    return RowsRun(core.engine, rows, prepare, options, max(1000, 10 * core.engine.max_workers), keep=keep)


def request_maker(pool: PoolBase, extra: Optional[Mapping[str, Any]] = None) -> Callable[[Any], ChatRequest]:
    """Fills in what a row's request lacks.

    Raises:
        TypeError: a keyword among ``extra`` that is no body field.
    """
    return RequestMaker(pool._defaults, None, body_fields("run", None, extra or {}))


def has_version_in_url(pool: PoolBase) -> bool:
    """Whether the base URL has a path, of which a request's ``/v1`` is a part."""
    return bool(urlsplit(pool._core.transport.base_url).path.strip("/"))


def needs_model(pool: PoolBase) -> bool:
    """Whether the server is OpenAI's own, which refuses requests without a model."""
    return urlsplit(pool._core.transport.base_url).hostname == urlsplit(PUBLIC_URL).hostname
