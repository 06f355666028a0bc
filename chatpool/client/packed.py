"""Runs of which many rows go out in one request."""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Optional

from ..engine import Call, CallOptions, Engine
from ..errors import ChatPoolError
from ..events import Event
from ..observe import ProgressBar
from ..types import ChatRequest, Outcome
from ..wire.vectors import vector_of
from .packs import Pack, Packs
from .rows import RowsRun
from .run import Run

__all__ = ["PackedRowsRun", "PackedRun"]


class PackedRun(Run):
    """A run whose requests for embeddings are joined; it gives one outcome per row all the same.

    A pack that is refused is sent again in halves, down to the row that is the cause.

    Args:
        engine, options: as for :class:`Run`.
        items: rows.
        prepare: makes the request of one row.
        window: how many packs may be read ahead.
        more: further arguments of a class in between.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
        **more: Any,
    ) -> None:
        self._packs = Packs(items, prepare)
        super().__init__(engine, self._packs, _request_of, options, window, **more)
        self.bar: Optional[ProgressBar] = None

    def value_of(self, request: ChatRequest, answer: Any) -> Any:
        """A row's value, of its part of the answer."""
        return vector_of(request, answer)

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        self._end(outcome)
        super().deliver(call, outcome)

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        self._end(outcome)
        super()._end_unsent(outcome)

    def _end(self, outcome: Outcome[Any]) -> None:
        pack: Pack = outcome.item
        if not pack.can_be_split(outcome.error):
            pack.ended = pack.outcomes(outcome, self.value_of)

    def _put(self, outcome: Outcome[Any]) -> None:
        with self._changed:
            super()._put(outcome)
            # Its halves may go well: it is no failure yet.
            if self.first_failure is outcome and outcome.item.can_be_split(outcome.error):
                self.first_failure = None

    def take(self, at_least: int = 1) -> List[Outcome[Any]]:
        """Rows that have ended; an empty list at the end of the run."""
        while True:
            packs = super().take(1)
            super().consumed(len(packs))
            rows = self._rows_of(packs)
            if rows or not packs:
                return rows

    def consumed(self, count: int) -> None:
        """Packs count against the look-ahead, and those are gone when they are taken."""

    def _rows_of(self, packs: List[Outcome[Any]]) -> List[Outcome[Any]]:
        rows, self._packs.refused = self._packs.refused, []
        for outcome in packs:
            pack: Pack = outcome.item
            if pack.ended is None and pack.can_be_split(outcome.error):
                self._packs.again.extend(pack.split(outcome))
                self._exhausted = False
                continue
            if outcome.ok and pack.was_too_large():
                self._packs.most_texts = max(1, min(self._packs.most_texts, len(pack.members)))
            rows += pack.outcomes(outcome, self.value_of) if pack.ended is None else pack.ended
        self._show(rows)
        return rows

    def _show(self, rows: List[Outcome[Any]]) -> None:
        if self.bar is not None:
            for row in rows:
                self.bar(Event("succeeded" if row.ok else "failed", 0, row.attempts, self.now()))

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        packs = super().drain(reason)
        rows, self._packs.refused = self._packs.refused, []
        for outcome in packs:
            pack: Pack = outcome.item
            rows += pack.outcomes(outcome, self.value_of) if pack.ended is None else pack.ended
        for member in self._packs.left_behind():
            rows.append(Outcome(member.place, member.row, member.request, error=reason.copied("not sent: ")))
        return rows


class PackedRowsRun(PackedRun, RowsRun):
    """Rows of a batch, each with the whole answer that the server would have given to it alone."""

    def value_of(self, request: ChatRequest, answer: Any) -> Any:
        return answer

    def keep(self, outcome: Outcome[Any]) -> None:
        for row in outcome.item.ended or ():
            super().keep(row)


def _request_of(pack: Pack) -> ChatRequest:
    return pack.request
