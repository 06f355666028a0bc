"""When so many items of a run have failed that the others are not sent any more.

Whether an outcome says something about its item for good.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Optional, Tuple, Union

from .._journal import FAILED, OK, RETRY
from .._locks import new_lock
from .._wire.error_body import without_ids
from .._wire.response import is_unsupported_answer
from .._wire.rules import rule_of_error
from ..config import positive_int
from ..errors import (
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    CallCancelledError,
    ChatPoolError,
    ConfigurationError,
    ContentFilterError,
    LengthError,
    ParseError,
    PoolClosedError,
    TooManyFailuresError,
    UnprocessableEntityError,
)
from ..types import Outcome

__all__ = ["FailureLimit", "MaxFailures", "can_never_succeed", "may_go_in_parts", "state_of"]


# An answer came, and it was not taken.
_OF_THE_ANSWER = (ParseError, LengthError, ContentFilterError)


def state_of(outcome: Outcome[Any]) -> Optional[str]:
    """How the item ended, as a journal's records say it; None where it has to be taken for never sent.

    Never sent is what was cancelled, what was given up because of another item's failure, and what the end of the
    run found waiting.
    """
    error = outcome.error
    if error is None:
        return OK
    if isinstance(error, _OF_THE_ANSWER):
        return FAILED
    if isinstance(error, (CallCancelledError, PoolClosedError)) or _is_of_another(error):
        return None
    if isinstance(error, ConfigurationError) or can_never_succeed(error):
        return FAILED
    return RETRY if outcome.attempts or type(error) is ChatPoolError else None


def can_never_succeed(error: ChatPoolError) -> bool:
    """Whether the same request would meet the same failure again."""
    if isinstance(error, _OF_THE_ANSWER):
        return True
    if isinstance(error, APIResponseError) and isinstance(error.body, bytes):  # an answer that is not JSON, kept whole
        return True
    if isinstance(error, APIError) and is_unsupported_answer(error):
        return True
    is_request = isinstance(error, (BadRequestError, UnprocessableEntityError))
    if not isinstance(error, APIError) or error.status_code is None:
        return is_request or (type(error) is ChatPoolError and isinstance(error.__cause__, (TypeError, ValueError)))
    rule = rule_of_error(error)
    # Some servers say with a 400 that the key or the model is wrong: with another one the request may succeed.
    return rule.kind != "fatal" if is_request else rule.is_permanent


def may_go_in_parts(error: ChatPoolError) -> bool:
    """Recognise a failure that, where it came back, may be due to one of many texts, or to their number."""
    if _is_of_another(error):
        return False
    if isinstance(error, (APIResponseError, APITimeoutError)):
        return True
    if not isinstance(error, APIError) or error.status_code is None:
        return False
    rule = rule_of_error(error)
    return rule.kind == "timeout" or rule.about == "content"


def _is_of_another(error: ChatPoolError) -> bool:
    """An error that ends other calls too is copied for each of them."""
    cause = error.__cause__
    return isinstance(cause, ChatPoolError) and type(cause) is type(error) and not isinstance(error, ConfigurationError)


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
