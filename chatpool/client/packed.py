"""Runs of which many rows go out in one request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Iterable, List, Optional

from ..engine import Call, CallOptions, Engine
from ..errors import ChatPoolError
from ..events import Event
from ..observe import ProgressBar
from ..types import ChatRequest, Outcome
from ..wire.vectors import check_vector, vector_of
from .packs import Pack, Packs
from .rows import RowsRun
from .run import Run, RunOrigin

__all__ = ["PackedRowsRun", "PackedRun"]


class PackedRun(Run):
    """A run whose requests for embeddings are joined; it gives one outcome per row all the same.

    A pack that is refused, that fails twice in the same way, or that comes back without all its vectors is sent again
    in parts, down to the row that is the cause.

    Args:
        engine, options: as for :class:`Run`.
        items: rows.
        prepare: makes the request of one row.
        window: how many packs may be read ahead.
        max_pack: how many rows a pack may have; None for as many as the API takes.
        more: further arguments of a class in between.
    """

    _lone = True  # rows that are sent alone go as texts

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        options: CallOptions,
        window: int,
        max_pack: Optional[int] = None,
        **more: Any,
    ) -> None:
        self._prepare_row = prepare
        self._max_pack = max_pack
        self._packs = Packs(items, prepare, max_pack, lone=self._lone)
        options = replace(options, suspects=_suspects_of)
        super().__init__(engine, self._packs, _request_of, options, window, **more)
        self.bar: Optional[ProgressBar] = None

    @property
    def origin(self) -> RunOrigin:
        return RunOrigin(self._prepare_row, self._options, packed=True, max_pack=self._max_pack)

    def value_of(self, request: ChatRequest, answer: Any) -> Any:
        """A row's value, of its part of the answer; raises UnusableAnswer where there is none."""
        return vector_of(request, answer)

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        outcome.item.settle(outcome, self.value_of)
        super().deliver(call, outcome)

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        outcome.item.settle(outcome, self.value_of)
        super()._end_unsent(outcome)

    def _items_of(self, outcome: Outcome[Any]) -> Iterable[Outcome[Any]]:
        return outcome.item.ended or ()

    def _put(self, outcome: Outcome[Any]) -> None:
        pack: Pack = outcome.item
        with self._changed:
            super()._put(outcome)
            # What is sent again may go well: it is no failure yet.
            if self.first_failure is outcome and pack.parts:
                self.first_failure = None
            failed = next((row for row in pack.ended or () if not row.ok), None)
            if self.first_failure is None and failed is not None:
                self.first_failure = failed
                self._changed.notify_all()

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
            if pack.ended is None:
                pack.settle(outcome, self.value_of)
            if pack.parts:
                # Before other parts: single texts tell soonest whether it is them, or the server.
                self._packs.again.extendleft(reversed(pack.parts))
                self._exhausted = False
            if pack.most_texts is not None:
                self._packs.most_texts = max(1, min(self._packs.most_texts, pack.most_texts))
            rows += pack.ended or ()
        self._show(rows)
        return rows

    def _show(self, rows: List[Outcome[Any]]) -> None:
        if self.bar is not None:
            for row in rows:
                self.bar(Event("succeeded" if row.ok else "failed", 0, row.attempts, self.now()))

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        rows = self._rows_of(super().drain(reason))
        for member in self._packs.left_behind():
            rows.append(Outcome(member.place, member.row, member.request, error=reason.copied("not sent: ")))
        return rows


class PackedRowsRun(PackedRun, RowsRun):
    """Rows of a batch, each with the whole answer that the server would have given to it alone."""

    _lone = False  # their answers are to be whole ones, and of a bare text there is the vector only

    def value_of(self, request: ChatRequest, answer: Any) -> Any:
        check_vector(answer)
        return answer

    def keep(self, outcome: Outcome[Any]) -> None:
        for row in outcome.item.ended or ():
            super().keep(row)


def _suspects_of(call: Call) -> int:
    pack: Pack = call.item
    return pack.suspects


def _request_of(pack: Pack) -> ChatRequest:
    return pack.request
