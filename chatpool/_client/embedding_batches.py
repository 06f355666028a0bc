"""Embeddings of many texts: rows are joined into batches, each of which is one request, as large as the API allows.

An :class:`_EmbeddingBatcher` makes an :class:`_EmbeddingBatch` of :class:`_BatchItem`, one for each row.  An
:class:`EmbeddingRun` sends them, shares the outcome of a batch out among its rows, and sends a batch that failed
again in parts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
)

from .._engine import Call, CallOptions, Engine
from .._reentrancy import runs_user_code
from .._wire.embeddings import (
    TooFewVectors,
    has_no_vectors,
    is_empty,
    join_requests,
    shared_part,
    split_response,
    tokens_of,
    vector_of,
)
from .._wire.response import UnusableAnswer, usage_of
from ..errors import APIResponseError, ChatPoolError, ConfigurationError
from ..types import Attempt, ChatRequest, Outcome, Usage
from .failures import can_never_succeed, may_succeed_in_parts
from .run import Run, RunOrigin, unusable_item
from .stored_runs import StoredRowsRun

if TYPE_CHECKING:
    from .cache_keys import CacheKey
    from .run_cache import RunCache

__all__ = [
    "MAX_BATCH_TEXTS",
    "PAUSE",
    "EmbeddingRowsRun",
    "EmbeddingRun",
]

PAUSE: Any = object()
"""In place of a row: the next one may take a while, so that the batch at hand should go out."""

# https://platform.openai.com/docs/api-reference/embeddings/create
MAX_BATCH_TEXTS = 2048
_MAX_BATCH_TOKENS = 300_000


class _BatchItem(NamedTuple):
    """One row in a batch.

    Attributes:
        key: what the cache knows its request by; None without a cache.
        value: the value of the answer that the cache has; None where it has none.
    """

    row_index: int
    row: Any
    request: ChatRequest
    tokens: int
    key: Optional[CacheKey] = None
    value: Any = None


class _Siblings:
    """The parts of a batch that failed: if all of them succeed, it was too large."""

    def __init__(self, count: int) -> None:
        self.outstanding = count


class _EmbeddingBatch:
    """Rows that are sent as one request.

    Args:
        items: the rows.
        is_joined: whether the request has a list of texts, and not the request of the only row as it is.
        earlier_attempts: of the larger batches that these rows were in.
        siblings: the other parts of the batch that this is a part of.
        sends_bare_text: whether a part of one row goes out as a text, and not as a list of one.
        is_cached: whether all rows have their answers from the cache, and nothing is sent.

    Attributes:
        items: the rows.
        is_cached: the same.
        answers: (key, answer) of each row for the cache, where there is one.
        request: the request for all of them.
        outcomes: of the rows that have ended, None before the batch has an outcome.
        parts: batches of the rows that are to be sent again, once it has one.
        max_texts: how many texts the server takes at once, as this batch has shown; None where it has shown nothing.
    """

    __slots__ = (
        "_earlier_attempts",
        "_is_joined",
        "_sends_bare_text",
        "_siblings",
        "answers",
        "is_cached",
        "items",
        "max_texts",
        "outcomes",
        "parts",
        "request",
    )

    def __init__(
        self,
        items: List[_BatchItem],
        *,
        is_joined: bool,
        earlier_attempts: Tuple[Attempt, ...] = (),
        siblings: Optional[_Siblings] = None,
        sends_bare_text: bool = False,
        is_cached: bool = False,
    ) -> None:
        self.items = items
        self.is_cached = is_cached
        self.answers: List[Tuple[CacheKey, Any]] = []
        self._is_joined = is_joined
        self._sends_bare_text = sends_bare_text
        self._earlier_attempts = earlier_attempts
        self._siblings = siblings
        self.request = join_requests([item.request for item in items]) if is_joined else items[0].request
        self.outcomes: Optional[List[Outcome[Any]]] = None
        self.parts: List[_EmbeddingBatch] = []
        self.max_texts: Optional[int] = None

    @property
    def suspects(self) -> int:
        """Number of texts, one of which may be the cause of a failure; 0 for one that never failed among others."""
        return len(self.items) if len(self.items) > 1 or self._earlier_attempts else 0

    def settle(self, outcome: Outcome[Any], value_of: Callable[[Any], Any]) -> None:
        """Share an outcome out among the rows.

        Those that the server may have taken alone, or among fewer, are put into :attr:`parts`.

        Args:
            outcome: the batch's.
            value_of: makes a row's value of its part of the answer.
        """
        self.outcomes = []
        if self.is_cached:
            self.outcomes = list(map(_cached_outcome, self.items))
        elif outcome.error is not None and self.may_be_split(outcome):
            takes_no_list = has_no_vectors(getattr(outcome.error, "body", None))
            self.max_texts = 1 if takes_no_list else None
            self._split(1 if takes_no_list else len(self.items) // 2, outcome)
        elif outcome.error is not None or not self._is_joined:
            if outcome.error is None:
                self._note_answer(self.items[0], outcome.value)
            self.outcomes = [
                self._outcome_of(item, outcome, outcome.value, outcome.error, outcome.usage) for item in self.items
            ]
        else:
            self._share_out(outcome, value_of)
        if outcome.ok and self._siblings is not None and not self.parts:
            self._siblings.outstanding -= 1
            if not self._siblings.outstanding:
                self.max_texts = len(self.items)

    def may_be_split(self, outcome: Outcome[Any]) -> bool:
        """Return whether a failure may concern the size of the batch, or only one of its rows."""
        error = outcome.error
        if error is None or len(self.items) == 1:
            return False
        # A ConfigurationError is the pool's own: a text that cannot be encoded, or more tokens than its limit.
        if isinstance(error, ConfigurationError) or can_never_succeed(error):
            return True
        return outcome.attempts >= 2 and may_succeed_in_parts(error)

    def _split(self, size: int, outcome: Outcome[Any]) -> None:
        groups = [self.items[start : start + size] for start in range(0, len(self.items), size)]
        siblings = _Siblings(len(groups))
        self.parts = [self._part(group, outcome, siblings) for group in groups]

    def _part(
        self, items: List[_BatchItem], outcome: Outcome[Any], siblings: Optional[_Siblings] = None
    ) -> _EmbeddingBatch:
        return _EmbeddingBatch(
            items,
            # Some servers that embed no list do not even take a list of one.
            is_joined=len(items) > 1 or not self._sends_bare_text,
            earlier_attempts=self._earlier_attempts + outcome.history,
            siblings=siblings,
            sends_bare_text=self._sends_bare_text,
        )

    def _share_out(self, outcome: Outcome[Any], value_of: Callable[[Any], Any]) -> None:
        """Take the answer of a joined request apart."""
        count = len(self.items)
        try:
            answers = split_response(outcome.value, [item.tokens for item in self.items])
        except UnusableAnswer as problem:
            if count == 1:
                self.outcomes = [self._outcome_of(self.items[0], outcome, None, _unusable_answer(problem))]
                return
            vectors = problem.vectors if isinstance(problem, TooFewVectors) else count
            if vectors <= 1:
                self.max_texts = 1  # the server embeds one text at a time
            self._split(max(1, vectors) if vectors <= count // 2 else count // 2, outcome)
            return
        empty = [is_empty(answer) for answer in answers]
        if all(empty) and count > 1:
            self.max_texts = 1
        self.outcomes = []
        usages: Dict[Any, Optional[Usage]] = {}  # of the shares, of which many are equal
        for item, answer, has_no_vector in zip(self.items, answers, empty):
            if has_no_vector and count > 1:
                self.parts.append(self._part([item], outcome))
                continue
            share = repr(answer.get("usage"))
            if share not in usages:
                usages[share] = usage_of(answer)
            self.outcomes.append(self._outcome_with(item, outcome, answer, usages[share], value_of))

    def _outcome_with(
        self,
        item: _BatchItem,
        outcome: Outcome[Any],
        answer: Any,
        usage: Optional[Usage],
        value_of: Callable[[Any], Any],
    ) -> Outcome[Any]:
        try:
            value = value_of(answer)
        except UnusableAnswer as problem:
            return self._outcome_of(item, outcome, None, _unusable_answer(problem), usage)
        self._note_answer(item, answer)
        return self._outcome_of(item, outcome, value, None, usage)

    def _note_answer(self, item: _BatchItem, answer: Any) -> None:
        if item.key is not None:
            self.answers.append((item.key, answer))

    def _outcome_of(
        self,
        item: _BatchItem,
        outcome: Outcome[Any],
        value: Any,
        error: Optional[ChatPoolError],
        usage: Optional[Usage] = None,
    ) -> Outcome[Any]:
        history = self._earlier_attempts + outcome.history
        value = None if error is not None else value
        number, charges = outcome.fallback, outcome.charges[-1:] if outcome.fallback else ()
        charges = tuple(charge._replace(usage=usage) for charge in charges)
        row = item.row_index, item.row, item.request
        return Outcome(*row, value, error, history, outcome.elapsed, usage, number, charges)


def _cached_outcome(item: _BatchItem) -> Outcome[Any]:
    outcome: Outcome[Any] = Outcome(item.row_index, item.row, item.request, item.value, usage=Usage())
    outcome.cached = True
    return outcome


def _unusable_answer(problem: UnusableAnswer) -> APIResponseError:
    return APIResponseError(f"the answer {problem}; run the failed items again")


_Shared = Optional[Mapping[str, Any]]  # the part of a request that those of one batch have in common


class _EmbeddingBatcher(Iterator[_EmbeddingBatch]):
    """The batches of a run's rows.

    Args:
        rows: the input.
        prepare: makes the request of a row; what it raises becomes that row's outcome.
        max_pack: how many rows a batch may have; None for as many as the API takes.
        sends_bare_text: whether a row that is sent alone after all goes as a text, and not as a list of one.

    Attributes:
        parts: of batches that failed, and rows with answers from the cache; they go first.
        unsendable: outcomes of rows of which no request could be made.
        max_texts: how many rows a batch may have; less once the server has shown that it takes less.
        look_up: returns an item with its answer from the cache, as far as there is one; None without a cache.
        miss: returns the error of a request that is not in the cache, where nothing is sent; None where it is sent.
    """

    def __init__(
        self,
        rows: Iterable[Any],
        prepare: Callable[[Any], ChatRequest],
        max_pack: Optional[int] = None,
        *,
        sends_bare_text: bool = False,
    ) -> None:
        self._sends_bare_text = sends_bare_text
        self._rows = iter(rows)
        self._prepare = prepare
        self._index = 0
        self._next_item: Optional[Tuple[_BatchItem, _Shared]] = None  # it did not fit into the batch before
        self._items: List[_BatchItem] = []  # of the batch that is being filled
        self.parts: Deque[_EmbeddingBatch] = deque()
        self.unsendable: List[Outcome[Any]] = []
        self.max_texts = max_pack or MAX_BATCH_TEXTS
        self._cached: List[_BatchItem] = []
        self.look_up: Optional[Callable[[_BatchItem], _BatchItem]] = None
        self.miss: Optional[Callable[[ChatRequest], ChatPoolError]] = None

    def __next__(self) -> _EmbeddingBatch:
        if self.parts:
            return self.parts.popleft()
        batch_shared, tokens = None, 0
        while True:
            self._next_item = self._next_item or self._read()
            if self._next_item is None:
                break
            item, shared = self._next_item
            fits = len(self._items) < self.max_texts and tokens + item.tokens <= _MAX_BATCH_TOKENS
            if self._items and (shared is None or shared != batch_shared or not fits):
                break
            self._items.append(item)
            self._next_item, batch_shared, tokens = None, shared, tokens + item.tokens
            if shared is None:
                break
        if self._cached:  # at once, as the next row may take a while
            cached, self._cached = self._cached, []
            self.parts.append(_EmbeddingBatch(cached, is_joined=False, is_cached=True))
        if not self._items and self.parts:
            return self.parts.popleft()
        if not self._items:
            raise StopIteration
        items, self._items = self._items, []
        return _EmbeddingBatch(items, is_joined=batch_shared is not None, sends_bare_text=self._sends_bare_text)

    @runs_user_code
    def _read(self) -> Optional[Tuple[_BatchItem, _Shared]]:
        """Return the next row of which a request can be made, and what its request must share with others.

        None at the end, and where the batch at hand is to go out.
        """
        if len(self._cached) >= MAX_BATCH_TEXTS:
            return None
        for row in self._rows:
            if row is PAUSE:
                if self._items or self._cached:
                    return None
                continue
            index = self._index
            self._index += 1
            try:
                request = self._prepare(row)
            except Exception as error:
                self.unsendable.append(Outcome(index, row, error=unusable_item(index, error)))
                continue
            shared = shared_part(request)
            item = _BatchItem(index, row, request, 0 if shared is None else tokens_of(request))
            if self.look_up is not None:
                item = self.look_up(item)
            if item.value is None and self.miss is None:
                return item, shared
            if self._put_unsent(item):
                return None
        return None

    def _put_unsent(self, item: _BatchItem) -> bool:
        """Take a row that is not sent; return whether there are so many that they are to go out."""
        if item.value is not None:
            self._cached.append(item)
            return len(self._cached) >= MAX_BATCH_TEXTS
        assert self.miss is not None
        error = self.miss(item.request)
        self.unsendable.append(Outcome(item.row_index, item.row, item.request, error=error))
        return False

    def take_unsent(self) -> List[_BatchItem]:
        """Return the rows that were read and are in no batch that was returned; forget them."""
        items = [item for batch in self.parts for item in batch.items] + self._items + self._cached
        if self._next_item is not None:
            items.append(self._next_item[0])
        self.parts.clear()
        self._items, self._cached, self._next_item = [], [], None
        return items


class EmbeddingRun(Run):
    """A run whose requests for embeddings are joined, with one outcome per row all the same.

    A batch that is refused, that fails twice in the same way, or whose answer lacks vectors is sent again in parts,
    down to the row that is the cause.

    Args:
        engine, options: as for :class:`Run`.
        items: rows.
        prepare: makes the request of one row.
        window: how many batches may be read ahead.
        max_pack: how many rows a batch may have; None for as many as the API takes.
        more: further arguments of a class in between.
    """

    _sends_bare_text = True  # of a row that is sent alone

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
        self._batches = _EmbeddingBatcher(items, prepare, max_pack, sends_bare_text=self._sends_bare_text)
        options = replace(options, suspects=_suspects_of)
        super().__init__(engine, self._batches, _request_of, options, window, **more)
        self._row_cache: Optional[RunCache] = None

    def use_cache(self, cache: Optional[RunCache]) -> None:
        """Look every row up in the cache, and keep its answer there, whichever others it goes out with."""
        self._row_cache = cache
        if cache is not None:
            self._batches.look_up = self._looked_up
            self._batches.miss = cache.cache.miss if cache.cache.is_offline else None

    def _looked_up(self, item: _BatchItem) -> _BatchItem:
        cache = self._row_cache
        if cache is None or self._engine.closed:
            return item
        key = cache.key_of_row(item.request, self._options, item.row, item.row_index)
        answer = None if key is None else cache.cache.find(key)
        try:
            value = None if answer is None else self.value_of(answer)
        except (UnusableAnswer, LookupError, TypeError, AttributeError):
            value = None
        return item._replace(key=key, value=value)

    @property
    def origin(self) -> RunOrigin:
        occurrences = {} if self._row_cache is None else self._row_cache.occurrences
        return RunOrigin(
            self._prepare_row, self._options, is_batched=True, max_pack=self._max_pack, occurrences=occurrences
        )

    def value_of(self, answer: Any) -> Any:
        """Return a row's value from its part of the answer.

        Raises:
            UnusableAnswer: it has none.
        """
        return vector_of(answer)

    def deliver(self, call: Call, outcome: Outcome[Any]) -> None:
        batch: _EmbeddingBatch = outcome.item
        batch.settle(outcome, self.value_of)
        if self._row_cache is not None and batch.answers:
            self._row_cache.cache.keep_rows(call, batch.answers)
            batch.answers = []
        super().deliver(call, outcome)

    def _make_call(self, index: int, item: _EmbeddingBatch, request: ChatRequest) -> Optional[Call]:
        if not item.is_cached:
            return super()._make_call(index, item, request)
        self._end_unsent(Outcome(index, item, request))
        return None

    def _end_unsent(self, outcome: Outcome[Any]) -> None:
        outcome.item.settle(outcome, self.value_of)
        super()._end_unsent(outcome)

    def _item_outcomes(self, outcome: Outcome[Any]) -> Iterable[Outcome[Any]]:
        return outcome.item.outcomes or ()

    def _count_in_progress(self, outcome: Outcome[Any]) -> None:
        """Do nothing: batches are no items, and :meth:`take` counts their rows."""

    def _put(self, outcome: Outcome[Any]) -> None:
        batch: _EmbeddingBatch = outcome.item
        with self._changed:
            super()._put(outcome)
            # Its parts are sent again and may succeed: it is no failure yet.
            if self.first_failure is outcome and batch.parts:
                self.first_failure = None
            failed = next((row_outcome for row_outcome in batch.outcomes or () if not row_outcome.ok), None)
            if self.first_failure is None and failed is not None:
                self.first_failure = failed
                self._changed.notify_all()

    def take(self, at_least: int = 1) -> List[Outcome[Any]]:
        """Return the outcomes of rows that have ended; an empty list at the end of the run."""
        while True:
            batch_outcomes = super().take(1)
            super().consumed(len(batch_outcomes))
            row_outcomes = self._row_outcomes(batch_outcomes)
            if row_outcomes or not batch_outcomes:
                return row_outcomes

    def consumed(self, count: int) -> None:
        """Do nothing: batches count against the look-ahead, and :meth:`take` has counted them."""

    def _row_outcomes(self, batch_outcomes: List[Outcome[Any]]) -> List[Outcome[Any]]:
        row_outcomes, self._batches.unsendable = self._batches.unsendable, []
        for outcome in batch_outcomes:
            batch: _EmbeddingBatch = outcome.item
            if batch.outcomes is None:
                batch.settle(outcome, self.value_of)
            if batch.parts:
                # Before other parts: single texts show soonest whether a text is the cause, or the server.
                self._batches.parts.extendleft(reversed(batch.parts))
                self._exhausted = False
            if batch.max_texts is not None:
                self._batches.max_texts = max(1, min(self._batches.max_texts, batch.max_texts))
            row_outcomes += batch.outcomes or ()
        for row_outcome in row_outcomes:
            super()._count_in_progress(row_outcome)
        return row_outcomes

    def drain(self, reason: ChatPoolError) -> List[Outcome[Any]]:
        row_outcomes = self._row_outcomes(super().drain(reason))
        for item in self._batches.take_unsent():
            error = reason.copied("not sent: ")
            row_outcomes.append(Outcome(item.row_index, item.row, item.request, error=error))
        return row_outcomes


class EmbeddingRowsRun(EmbeddingRun, StoredRowsRun):
    """Rows of a batch run, each with the whole answer that the server would have given to it alone."""

    _sends_bare_text = False  # the answer of a bare text is decoded to its vector, and these are to be whole

    def value_of(self, answer: Any) -> Any:
        vector_of(answer)
        return answer

    def _looked_up(self, item: _BatchItem) -> _BatchItem:
        found = super()._looked_up(item)
        # The answer to a single call of embed is kept without what is not the vector.
        is_whole = isinstance(found.value, dict) and "model" in found.value
        return found if is_whole else found._replace(value=None)

    def persist(self, outcome: Outcome[Any]) -> None:
        for row_outcome in outcome.item.outcomes or ():
            super().persist(row_outcome)


def _suspects_of(call: Call) -> int:
    batch: _EmbeddingBatch = call.item
    return batch.suspects


def _request_of(batch: _EmbeddingBatch) -> ChatRequest:
    return batch.request
