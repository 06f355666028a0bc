"""Requests for embeddings, put together until they are as large as the API allows."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ..errors import APIResponseError, ChatPoolError, ConfigurationError
from ..types import Attempt, ChatRequest, Outcome
from ..wire.answers import UnusableAnswer
from ..wire.vectors import joined, shared_part, taken_apart, tokens_of
from .final import can_never_succeed
from .run import unusable

__all__ = ["MOST_TEXTS", "MOST_TOKENS", "PAUSE", "Member", "Pack", "Packs"]

PAUSE: Any = object()
"""In place of a row: more may take a while, so that what there is should go out."""

# https://platform.openai.com/docs/api-reference/embeddings/create
MOST_TEXTS = 2048
MOST_TOKENS = 300_000


class Member(NamedTuple):
    """One row in a pack."""

    place: int
    row: Any
    request: ChatRequest
    tokens: int


class _Halves:
    """The two halves of a pack that was refused: if both are taken, it was too large."""

    def __init__(self) -> None:
        self.taken = 0


class Pack:
    """Rows that are sent as one request.

    Attributes:
        members: the rows.
        request: the request for all of them.
        ended: the rows' outcomes, None before the pack has one, or where it was split.
    """

    __slots__ = ("_before", "_halves", "_is_joined", "ended", "members", "request")

    def __init__(
        self,
        members: List[Member],
        *,
        is_joined: bool,
        before: Tuple[Attempt, ...] = (),
        halves: Optional[_Halves] = None,
    ) -> None:
        self.members = members
        self._is_joined = is_joined
        self._before = before
        self._halves = halves
        self.request = joined([member.request for member in members]) if is_joined else members[0].request
        self.ended: Optional[List[Outcome[Any]]] = None

    def can_be_split(self, error: Optional[ChatPoolError]) -> bool:
        """Whether ``error`` may concern the size of the pack, or one row of it only."""
        if error is None or len(self.members) == 1:
            return False
        # Refused here: a text that cannot be encoded, or more tokens than the pool's limit lets through.
        return isinstance(error, ConfigurationError) or can_never_succeed(error)

    def split(self, outcome: Outcome[Any]) -> List[Pack]:
        """Its two halves, after it was refused."""
        middle, halves, before = len(self.members) // 2, _Halves(), self._before + outcome.history
        return [
            Pack(part, is_joined=True, before=before, halves=halves)
            for part in (self.members[:middle], self.members[middle:])
        ]

    def was_too_large(self) -> bool:
        """Whether it turns out, now that this half was taken, that the whole was too large."""
        if self._halves is None:
            return False
        self._halves.taken += 1
        return self._halves.taken == 2

    def outcomes(self, outcome: Outcome[Any], value_of: Callable[[ChatRequest, Any], Any]) -> List[Outcome[Any]]:
        """The outcome of every row.

        Args:
            outcome: the pack's.
            value_of: makes a row's value of its request and its part of the answer.
        """
        history = self._before + outcome.history
        values: List[Any] = [outcome.value] * len(self.members)
        error = outcome.error
        if self._is_joined and outcome.ok:
            try:
                parts = taken_apart(outcome.value, [member.tokens for member in self.members])
                values = [value_of(member.request, part) for member, part in zip(self.members, parts)]
            except UnusableAnswer as problem:
                error = APIResponseError(f"the answer {problem}; run the failed items again")
        return [
            Outcome(member.place, member.row, member.request, None if error else value, error, history, outcome.elapsed)
            for member, value in zip(self.members, values)
        ]


class Packs(Iterator[Pack]):
    """The packs of a run's rows.

    Args:
        rows: the input.
        prepare: makes the request of a row; what it raises becomes that row's outcome.

    Attributes:
        again: halves of packs that were refused; they go first.
        refused: outcomes of rows of which no request could be made.
        most_texts: how many rows a pack may have; less once the server has said so.
    """

    def __init__(self, rows: Iterable[Any], prepare: Callable[[Any], ChatRequest]) -> None:
        self._rows = iter(rows)
        self._prepare = prepare
        self._index = 0
        self._held: Optional[Tuple[Member, Optional[Mapping[str, Any]]]] = None
        self._open: List[Member] = []  # of the pack that is being filled
        self.again: Deque[Pack] = deque()
        self.refused: List[Outcome[Any]] = []
        self.most_texts = MOST_TEXTS

    def __next__(self) -> Pack:
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
        return Pack(members, is_joined=shared is not None)

    def _read(self) -> Optional[Tuple[Member, Optional[Mapping[str, Any]]]]:
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
            return Member(index, row, request, 0 if part is None else tokens_of(request)), part
        return None

    def left_behind(self) -> List[Member]:
        """Rows that were read and are in no pack that was handed over."""
        members = [member for pack in self.again for member in pack.members] + self._open
        if self._held is not None:
            members.append(self._held[0])
        self.again.clear()
        self._open, self._held = [], None
        return members
