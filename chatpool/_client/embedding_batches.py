"""Requests for embeddings, put together until they are as large as the API allows.

Runs of which many rows go out in one request.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, Callable, Deque, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .._engine import Call, CallOptions, Engine
from .._observe import ProgressBar
from .._reentrancy import runs_user_code
from .._wire.embeddings import (
    TooFewVectors,
    check_vector,
    has_no_vectors,
    is_empty,
    join_requests,
    shared_part,
    split_response,
    tokens_of,
    vector_of,
)
from .._wire.response import UnusableAnswer
from .._wire.usage import usage_of
from ..errors import APIResponseError, ChatPoolError, ConfigurationError
from ..events import Event
from ..types import Attempt, ChatRequest, Outcome, Usage
from .failure_limit import can_never_succeed, may_go_in_parts
from .run import Run, RunOrigin, unusable
from .stored_runs import StoredRowsRun

__all__ = [
    "MOST_TEXTS",
    "MOST_TOKENS",
    "PAUSE",
    "BatchItem",
    "EmbeddingBatch",
    "EmbeddingBatcher",
    "EmbeddingRowsRun",
    "EmbeddingRun",
]


PAUSE: Any = object()
"""In place of a row: more may take a while, so that what there is should go out."""

# https://platform.openai.com/docs/api-reference/embeddings/create
MOST_TEXTS = 2048
MOST_TOKENS = 300_000


class BatchItem(NamedTuple):
    """One row in a pack."""

    place: int
    row: Any
    request: ChatRequest
    tokens: int


class _Parts:
    """The parts of a pack that failed: if all are taken, it was too large."""

    def __init__(self, count: int) -> None:
        self.left = count


class EmbeddingBatch:
    """Rows that are sent as one request.

    Attributes:
        members: the rows.
        request: the request for all of them.
        ended: the outcomes of those that have ended, None before the pack has one.
        parts: packs of those that are to be sent again, once it has.
        most_texts: how many texts the server takes at once, as this pack has shown; None where it has shown nothing.
    """

    __slots__ = ("_before", "_is_joined", "_lone", "_siblings", "ended", "members", "most_texts", "parts", "request")

    def __init__(
        self,
        members: List[BatchItem],
        *,
        is_joined: bool,
        before: Tuple[Attempt, ...] = (),
        siblings: Optional[_Parts] = None,
        lone: bool = False,
    ) -> None:
        self.members = members
        self._is_joined = is_joined
        self._lone = lone
        self._before = before
        self._siblings = siblings
        self.request = join_requests([member.request for member in members]) if is_joined else members[0].request
        self.ended: Optional[List[Outcome[Any]]] = None
        self.parts: List[EmbeddingBatch] = []
        self.most_texts: Optional[int] = None

    @property
    def suspects(self) -> int:
        """How many texts may be one that the server stumbles over; 0 for one that has never failed among others."""
        return len(self.members) if len(self.members) > 1 or self._before else 0

    def settle(self, outcome: Outcome[Any], value_of: Callable[[ChatRequest, Any], Any]) -> None:
        """Share an outcome out among the rows.

        Those that the server may have taken alone, or among fewer, are put into :attr:`parts`.

        Args:
            outcome: the pack's.
            value_of: makes a row's value of its request and its part of the answer.
        """
        history, self.ended = self._before + outcome.history, []
        if outcome.error is not None and self.may_be_split(outcome):
            takes_none = has_no_vectors(getattr(outcome.error, "body", None))
            self.most_texts = 1 if takes_none else None
            self._split(1 if takes_none else len(self.members) // 2, history)
        elif outcome.error is not None or not self._is_joined:
            self.ended = [
                self._end_of(member, outcome, outcome.value, outcome.error, outcome.usage) for member in self.members
            ]
        else:
            self._take_apart(outcome, value_of)
        if outcome.ok and self._siblings is not None and not self.parts:
            self._siblings.left -= 1
            if not self._siblings.left:
                self.most_texts = len(self.members)

    def may_be_split(self, outcome: Outcome[Any]) -> bool:
        """Whether a failure may concern the size of the pack, or one row of it only."""
        error = outcome.error
        if error is None or len(self.members) == 1:
            return False
        # Refused here: a text that cannot be encoded, or more tokens than the pool's limit lets through.
        if isinstance(error, ConfigurationError) or can_never_succeed(error):
            return True
        return outcome.attempts >= 2 and may_go_in_parts(error)

    def _split(self, size: int, history: Tuple[Attempt, ...]) -> None:
        groups = [self.members[start : start + size] for start in range(0, len(self.members), size)]
        siblings = _Parts(len(groups))
        self.parts = [self._part(group, history, siblings) for group in groups]

    def _part(
        self, members: List[BatchItem], history: Tuple[Attempt, ...], siblings: Optional[_Parts] = None
    ) -> EmbeddingBatch:
        # Some servers that embed no list take not even a list of one.
        is_joined = len(members) > 1 or not self._lone
        return EmbeddingBatch(members, is_joined=is_joined, before=history, siblings=siblings, lone=self._lone)

    def _take_apart(self, outcome: Outcome[Any], value_of: Callable[[ChatRequest, Any], Any]) -> None:
        history, count = self._before + outcome.history, len(self.members)
        try:
            answers = split_response(outcome.value, [member.tokens for member in self.members])
        except UnusableAnswer as problem:
            if count == 1:
                self.ended = [self._end_of(self.members[0], outcome, None, _unusable(problem))]
                return
            found = problem.vectors if isinstance(problem, TooFewVectors) else count
            if found <= 1:
                self.most_texts = 1  # it embeds one text at a time
            self._split(max(1, found) if found <= count // 2 else count // 2, history)
            return
        empty = [is_empty(answer) for answer in answers]
        if all(empty) and count > 1:
            self.most_texts = 1
        self.ended = []
        for member, answer, again in zip(self.members, answers, empty):
            if again and count > 1:
                self.parts.append(self._part([member], history))
            else:
                self.ended.append(self._made(member, outcome, answer, value_of))

    def _made(
        self, member: BatchItem, outcome: Outcome[Any], answer: Any, value_of: Callable[[ChatRequest, Any], Any]
    ) -> Outcome[Any]:
        try:
            return self._end_of(member, outcome, value_of(member.request, answer), None, usage_of(answer))
        except UnusableAnswer as problem:
            return self._end_of(member, outcome, None, _unusable(problem), usage_of(answer))

    def _end_of(
        self,
        member: BatchItem,
        outcome: Outcome[Any],
        value: Any,
        error: Optional[ChatPoolError],
        usage: Optional[Usage] = None,
    ) -> Outcome[Any]:
        history = self._before + outcome.history
        made = None if error is not None else value
        return Outcome(member.place, member.row, member.request, made, error, history, outcome.elapsed, usage)


def _unusable(problem: UnusableAnswer) -> APIResponseError:
    return APIResponseError(f"the answer {problem}; run the failed items again")


class EmbeddingBatcher(Iterator[EmbeddingBatch]):
    """The packs of a run's rows.

    Args:
        rows: the input.
        prepare: makes the request of a row; what it raises becomes that row's outcome.
        max_pack: how many rows a pack may have; None for as many as the API takes.
        lone: whether a text that is sent alone after all goes as a text, and not as a list of one.

    Attributes:
        again: parts of packs that were refused; they go first.
        refused: outcomes of rows of which no request could be made.
        most_texts: how many rows a pack may have; less once the server has said so.
    """

    def __init__(
        self,
        rows: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        max_pack: Optional[int] = None,
        *,
        lone: bool = False,
    ) -> None:
        self._lone = lone
        self._rows = iter(rows)
        self._prepare = prepare
        self._index = 0
        self._held: Optional[Tuple[BatchItem, Optional[Mapping[str, Any]]]] = None
        self._open: List[BatchItem] = []  # of the pack that is being filled
        self.again: Deque[EmbeddingBatch] = deque()
        self.refused: List[Outcome[Any]] = []
        self.most_texts = max_pack or MOST_TEXTS

    def __next__(self) -> EmbeddingBatch:
        if self.again:
            return self.again.popleft()
        shared, tokens = None, 0
        while True:
            found = self._held or self._read()
            if found is None:
                break
            self._held = found
            member, part = found
            fits = len(self._open) < self.most_texts and tokens + member.tokens <= MOST_TOKENS
            if self._open and (part is None or part != shared or not fits):
                break
            self._open.append(member)
            self._held, shared, tokens = None, part, tokens + member.tokens
            if part is None:
                break
        if not self._open:
            raise StopIteration
        members, self._open = self._open, []
        return EmbeddingBatch(members, is_joined=shared is not None, lone=self._lone)

    @runs_user_code
    def _read(self) -> Optional[Tuple[BatchItem, Optional[Mapping[str, Any]]]]:
        """The next row of which a request can be made, and what it has to share with others.

        None at the end, and where what was read so far is to go out.
        """
        for row in self._rows:
            if row is PAUSE:
                if self._open:
                    return None
                continue
            index = self._index
            self._index += 1
            try:
                request = self._prepare(row)
            except Exception as error:
                self.refused.append(Outcome(index, row, error=unusable(index, error)))
                continue
            part = shared_part(request)
            return BatchItem(index, row, request, 0 if part is None else tokens_of(request)), part
        return None

    def left_behind(self) -> List[BatchItem]:
        """Rows that were read and are in no pack that was handed over."""
        members = [member for pack in self.again for member in pack.members] + self._open
        if self._held is not None:
            members.append(self._held[0])
        self.again.clear()
        self._open, self._held = [], None
        return members


class EmbeddingRun(Run):
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
        self._packs = EmbeddingBatcher(items, prepare, max_pack, lone=self._lone)
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
        pack: EmbeddingBatch = outcome.item
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
            pack: EmbeddingBatch = outcome.item
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


class EmbeddingRowsRun(EmbeddingRun, StoredRowsRun):
    """Rows of a batch, each with the whole answer that the server would have given to it alone."""

    _lone = False  # their answers are to be whole ones, and of a bare text there is the vector only

    def value_of(self, request: ChatRequest, answer: Any) -> Any:
        check_vector(answer)
        return answer

    def keep(self, outcome: Outcome[Any]) -> None:
        for row in outcome.item.ended or ():
            super().keep(row)


def _suspects_of(call: Call) -> int:
    pack: EmbeddingBatch = call.item
    return pack.suspects


def _request_of(pack: EmbeddingBatch) -> ChatRequest:
    return pack.request
