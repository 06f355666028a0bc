"""One item of a run with ``samples=``: its answers as they come, and the outcome that they make."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Sequence, Tuple

from .._engine import Call
from .._locks import new_lock
from .._wire.sampling import join_answers
from ..errors import ChatPoolError
from ..prices import Charge
from ..types import Attempt, ChatCompletion, Outcome, Usage

if TYPE_CHECKING:
    from .cache_keys import CacheKey

__all__ = ["SampledItem"]


class SampledItem:
    """One item and its samples.

    Args:
        lead: the call of the item, which is never sent.
        samples: how many answers it is to get.

    Attributes:
        lock: held while something else is changed, except for ``answers``, whose places belong to one call each.
        answers: by place, None where none has come.
        keys: what the cache knows them by, by place; empty without one.
        outstanding: calls that have not ended.
        error: the first error with which a call has ended for good.
        whole: the answer of a call that has brought all of them, as it came; None without one.
    """

    __slots__ = (
        *("_began_at", "_cached", "_charges", "_fallback", "_history", "_usage", "_usages"),
        *("answers", "error", "keys", "lead", "lock", "outstanding", "whole"),
    )

    def __init__(self, lead: Call, samples: int) -> None:
        self.lead = lead
        self.lock = new_lock()
        self.answers: List[Optional[ChatCompletion]] = [None] * samples
        self.keys: Sequence[CacheKey] = ()
        self.outstanding = 0
        self.error: Optional[ChatPoolError] = None
        self.whole: Optional[ChatCompletion] = None
        self._began_at: Optional[float] = None
        self._history: Tuple[Attempt, ...] = ()
        self._usage: Optional[Usage] = None
        self._charges: Tuple[Charge, ...] = ()
        self._fallback = self._cached = 0
        self._usages: List[Mapping[str, Any]] = []  # as they stand in the answers

    def note(self, call: Call, outcome: Outcome[Any]) -> None:
        """Note the end of a call."""
        with self.lock:
            self.error = self.error or outcome.error
            self._history += outcome.history
            usages = [usage for usage in (self._usage, outcome.usage) if usage is not None]
            self._usage = sum(usages[1:], usages[0]) if usages else None
            self._charges += outcome.charges
            self._fallback = max(self._fallback, outcome.fallback)
            self._cached += outcome.cached
            began = [at for at in (self._began_at, call.first_sent_at) if at is not None]
            self._began_at = min(began, default=None)

    def note_usage(self, completion: ChatCompletion) -> None:
        """Note the tokens of an answer, or of several in one, as they stand in it."""
        usage = completion.raw.get("usage")
        if isinstance(usage, Mapping):
            self._usages.append(usage)

    def missing(self) -> Iterator[Tuple[int, int]]:
        """Return the gaps in the answers: the first place of each, and how many there are from there on."""
        places = [place for place, answer in enumerate(self.answers) if answer is None]
        for _, gap in itertools.groupby(enumerate(places), lambda entry: entry[1] - entry[0]):
            (_, first), *others = gap
            yield first, 1 + len(others)

    def outcome(self, now: float) -> Outcome[Any]:
        """Return the outcome of the item, once all calls have ended."""
        lead, value, error = self.lead, self._joined(), self.error
        if error is not None and value is not None:
            error = _partly(error, f"{len(value.choices)} of {len(self.answers)} answers came: ")
            error.samples = value
        if error is not None:
            error.attempts, value = len(self._history), None
        elapsed = 0.0 if self._began_at is None else now - self._began_at
        is_cached = value is not None and self._cached == len(self.answers)
        if value is not None and is_cached:
            value.usage, value.cached = Usage(), True
        if value is not None:
            value._fallback = self._fallback
        spent = self._history, elapsed, self._usage, self._fallback, self._charges if self._fallback else ()
        outcome: Outcome[Any] = Outcome(lead.index, lead.item, lead.first_request, value, error, *spent)
        outcome.cached = is_cached
        return outcome

    def _joined(self) -> Optional[ChatCompletion]:
        if self.whole is not None:
            return self.whole
        came = {place: answer for place, answer in enumerate(self.answers) if answer is not None}
        return join_answers(self.lead.request, came, self._usages) if came else None


def _partly(error: ChatPoolError, prefix: str) -> ChatPoolError:
    """Return the error with a prefix, and with its own cause: as a copy of it, it would be that of another item."""
    partly = error.copied(prefix)
    partly.__cause__ = error.__cause__
    return partly
