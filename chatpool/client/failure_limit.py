"""When so many items of a run have failed that the others are not sent any more."""

from __future__ import annotations

import re
from typing import Any, Iterable, Optional, Tuple, Union

from ..config import positive_int
from ..errors import APIResponseError, APIStatusError, ChatPoolError, ConfigurationError, TooManyFailuresError
from ..locks import new_lock
from ..types import Outcome
from ..wire.messages import without_ids
from .final import can_never_succeed

__all__ = ["FailureLimit", "MaxFailures"]

MaxFailures = Union[int, float, str, None]

_SAME = "same"
_FIRST = 50  # items whose refusals in the same words end a run
_SHARE_OF = 20  # items that have ended before a share of them is looked at

_numbers = re.compile(r"\d+")


class FailureLimit:
    """Counts what has ended in one run.

    Args:
        max_failures: a number of failed items that ends the run; a share of those that have ended, between 0 and 1,
            looked at from the 20th on; ``"same"``: the server refuses the first 50 items that are sent, each for a
            fault of the item's own and all in the same words; None: nothing ends it.

    Attributes:
        is_default: whether nobody has said how many may fail; otherwise no smaller number of refusals ends the run.

    Raises:
        TypeError, ConfigurationError: ``max_failures`` is none of these.
    """

    def __init__(self, max_failures: MaxFailures) -> None:
        if isinstance(max_failures, str) and max_failures != _SAME:
            raise ConfigurationError(f'max_failures must be a number, a share, "same" or None, got {max_failures!r}')
        if isinstance(max_failures, float):
            if not 0 < max_failures < 1:
                raise ConfigurationError(
                    f"max_failures must lie between 0 and 1 where it is a share, got {max_failures}; "
                    "a number of items is an int"
                )
        elif max_failures is not None and max_failures != _SAME:
            positive_int("max_failures", max_failures)
        self._max = max_failures
        self._is_watching = max_failures is not None
        self.is_default = max_failures == _SAME
        self._ended = self._failed = 0
        self._words: Optional[Tuple[Any, ...]] = None
        self._lock = new_lock()

    def reached_by(self, outcomes: Iterable[Outcome[Any]]) -> Optional[ChatPoolError]:
        """Count outcomes; return why the run ends, once, and None otherwise."""
        if not self._is_watching:
            return None
        with self._lock:
            for outcome in outcomes:
                reason = self._count(outcome) if self._is_watching else None
                if reason is not None:
                    self._is_watching = False
                    return reason
        return None

    def _count(self, outcome: Outcome[Any]) -> Optional[ChatPoolError]:
        if self._max == _SAME:
            return self._count_same(outcome)
        self._ended += 1
        if outcome.error is None:
            return None
        self._failed += 1
        last = outcome.error
        if isinstance(self._max, int):
            reached = self._failed >= self._max
            limit = f"max_failures={self._max}"
        else:
            assert isinstance(self._max, float)
            reached = self._ended >= _SHARE_OF and self._failed >= self._max * self._ended
            limit = f"{self._max:.4g} of {self._ended:,} items (max_failures)"
        if not reached:
            return None
        reason = TooManyFailuresError(
            f"{self._failed:,} items have failed, as many as ends the run: {limit}; the last: {_said(last)}"
        )
        reason.__cause__ = last
        return reason

    def _count_same(self, outcome: Outcome[Any]) -> Optional[ChatPoolError]:
        if not outcome.attempts and outcome.error is not None:
            return None  # not sent, and not paid
        error, words = outcome.error, _words_of(outcome.error)
        if error is None or words is None or words != (self._words or words):
            self._is_watching = False
            return None
        self._words = words
        self._failed += 1
        if self._failed < _FIRST:
            return None
        reason = TooManyFailuresError(
            f"the server has refused the first {_FIRST} items, all in the same words: {_said(error)}; "
            "max_failures=None (--max-failures none) sends the others all the same"
        )
        reason.__cause__ = error
        return reason


def _words_of(error: Optional[ChatPoolError]) -> Optional[Tuple[Any, ...]]:
    """What the server said against one item, without numbers and identifiers.

    None where it is not the item's own fault.
    """
    if not isinstance(error, (APIResponseError, APIStatusError)) or not can_never_succeed(error):
        return None
    words = without_ids(error.message, error.request_id)
    return type(error), error.status_code, error.code, error.param, _numbers.sub("0", words)


def _said(error: ChatPoolError) -> str:
    return f"{type(error).__name__}: {error.message}"
