"""Requests for embeddings, put together until they are as large as the API allows."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ..errors import APIResponseError, ChatPoolError, ConfigurationError
from ..reentrancy import runs_user_code
from ..types import Attempt, ChatRequest, Outcome, Usage
from ..wire.answers import UnusableAnswer
from ..wire.usage import usage_of
from ..wire.vectors import TooFewVectors, has_no_vectors, is_empty, joined, shared_part, taken_apart, tokens_of
from .final import can_never_succeed, may_go_in_parts
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


class _Parts:
    """The parts of a pack that failed: if all are taken, it was too large."""

    def __init__(self, count: int) -> None:
        self.left = count


class Pack:
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
        members: List[Member],
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
        self.request = joined([member.request for member in members]) if is_joined else members[0].request
        self.ended: Optional[List[Outcome[Any]]] = None
        self.parts: List[Pack] = []
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

    def _part(self, members: List[Member], history: Tuple[Attempt, ...], siblings: Optional[_Parts] = None) -> Pack:
        # Some servers that embed no list take not even a list of one.
        is_joined = len(members) > 1 or not self._lone
        return Pack(members, is_joined=is_joined, before=history, siblings=siblings, lone=self._lone)

    def _take_apart(self, outcome: Outcome[Any], value_of: Callable[[ChatRequest, Any], Any]) -> None:
        history, count = self._before + outcome.history, len(self.members)
        try:
            answers = taken_apart(outcome.value, [member.tokens for member in self.members])
        except UnusableAnswer as problem:
            if count == 1:
                self.ended = [self._end_of(self.members[0], outcome, None, _unusable(problem))]
                return
            found = problem.found if isinstance(problem, TooFewVectors) else count
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
        self, member: Member, outcome: Outcome[Any], answer: Any, value_of: Callable[[ChatRequest, Any], Any]
    ) -> Outcome[Any]:
        try:
            return self._end_of(member, outcome, value_of(member.request, answer), None, usage_of(answer))
        except UnusableAnswer as problem:
            return self._end_of(member, outcome, None, _unusable(problem), usage_of(answer))

    def _end_of(
        self,
        member: Member,
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


class Packs(Iterator[Pack]):
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
        self._held: Optional[Tuple[Member, Optional[Mapping[str, Any]]]] = None
        self._open: List[Member] = []  # of the pack that is being filled
        self.again: Deque[Pack] = deque()
        self.refused: List[Outcome[Any]] = []
        self.most_texts = max_pack or MOST_TEXTS

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
        return Pack(members, is_joined=shared is not None, lone=self._lone)

    @runs_user_code
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
