"""Runs over rows whose outcomes somebody else keeps."""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Optional

from ..engine import CallOptions, Engine
from ..errors import ChatPoolError
from ..types import ChatRequest, Outcome
from .kept import KeptRun

__all__ = ["RowsRun"]

_STRIDE = 128  # rows read before they are sent
_LOOK_EVERY = 0.2  # seconds


class RowsRun(KeptRun):
    """A run of rows.

    Args:
        engine, items, prepare, options, window: as for :class:`KeptRun`.
        keep: keeps an outcome; called in workers, and in the consumer's thread for a row that was not sent.
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

    def keep(self, outcome: Outcome[Any]) -> None:
        self._keep(outcome)

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        self._try_to_keep(outcome)
        super()._end_unsent(outcome)

    def send_no_more(self, reason: ChatPoolError) -> None:
        """Send nothing new: what waits ends with ``reason``, what is in flight goes on to its end."""
        with self._changed:
            self._stopped = self._stopped or reason
        self._engine.give_up(lambda call: call.sink is self, lambda call: reason.copied(), in_flight=False)

    @property
    def ended_by(self) -> Optional[ChatPoolError]:
        """Why nothing new is sent, None while something may be."""
        return self._stopped or self._refused

    def _reads_no_more(self) -> bool:
        """As soon as nothing more is sent: rows that were not sent stay pending, read or not."""
        return self.ended_by is not None

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
        with self._engine.waiting(), self._changed:
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
