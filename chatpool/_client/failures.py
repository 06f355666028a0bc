"""Failures of a run's items: how many of them end the run, and which are final.

An item whose failure is final is not sent again by a later run with the same journal.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Optional, Tuple, Union

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
    DayLimitError,
    LengthError,
    ParseError,
    PoolClosedError,
    TooManyFailuresError,
    UnprocessableEntityError,
)
from ..types import Outcome

__all__ = ["FailureLimit", "MaxFailures", "can_never_succeed", "may_succeed_in_parts", "state_of"]

MaxFailures = Union[int, float, str, None]

_SAME = "same"
_SAME_REJECTIONS_ITEMS = 50  # items that are refused in the same words end a run
_SHARE_AFTER_ITEMS = 20  # items that have to end before their share of failures is looked at


class FailureLimit:
    """Count the items of one run that have ended, and find the failure that ends the run.

    Args:
        max_failures: a number of failed items that ends the run; a share of those that have ended, between 0 and 1,
            looked at from the 20th on; ``"same"``: the server refuses the first 50 items that are sent, each for a
            fault of its own and all in the same words; None: nothing ends it.

    Attributes:
        is_default: whether the caller set no number; otherwise no smaller number of rejections ends the run.

    Raises:
        TypeError, ConfigurationError: ``max_failures`` is none of these.
    """

    def __init__(self, max_failures: MaxFailures) -> None:
        if isinstance(max_failures, str) and max_failures != _SAME:
            raise ConfigurationError(f'max_failures must be a number, a share, "same" or None, got {max_failures!r}')
        if isinstance(max_failures, float):
            if not 0 < max_failures < 1:
                raise ConfigurationError(
                    f"max_failures must be between 0 and 1 where it is a share, got {max_failures}; "
                    "a number of items is an int"
                )
        elif max_failures is not None and max_failures != _SAME:
            positive_int("max_failures", max_failures)
        self._max = max_failures
        self._is_watching = max_failures is not None
        self.is_default = max_failures == _SAME
        self._ended = self._failed = 0
        self._first_message: Optional[Tuple[Any, ...]] = None
        self._lock = new_lock()

    def reached_by(self, outcomes: Iterable[Outcome[Any]]) -> Optional[ChatPoolError]:
        """Count outcomes; return the error that ends the run, once, and None otherwise."""
        if not self._is_watching:
            return None
        with self._lock:
            for outcome in outcomes:
                if isinstance(outcome.error, DayLimitError):  # it stays pending
                    continue
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
            reached = self._ended >= _SHARE_AFTER_ITEMS and self._failed >= self._max * self._ended
            limit = f"{self._max:.4g} of {self._ended:,} items (max_failures)"
        if not reached:
            return None
        reason = TooManyFailuresError(
            f"{self._failed:,} items have failed, as many as ends the run: {limit}; the last: {_summary_of(last)}"
        )
        reason.__cause__ = last
        return reason

    def _count_same(self, outcome: Outcome[Any]) -> Optional[ChatPoolError]:
        if not outcome.attempts and outcome.error is not None:
            return None  # not sent, and not paid
        error, message = outcome.error, _server_message_of(outcome.error)
        if error is None or message is None or message != (self._first_message or message):
            self._is_watching = False
            return None
        self._first_message = message
        self._failed += 1
        if self._failed < _SAME_REJECTIONS_ITEMS:
            return None
        reason = TooManyFailuresError(
            f"the server has refused the first {_SAME_REJECTIONS_ITEMS} items, all in the same words: "
            f"{_summary_of(error)}; "
            "max_failures=None (--max-failures none) sends the others all the same"
        )
        reason.__cause__ = error
        return reason


def _server_message_of(error: Optional[ChatPoolError]) -> Optional[Tuple[Any, ...]]:
    """Return what identifies the server's message about one item, numbers and identifiers left out.

    None if the fault is not the item's own.
    """
    if not isinstance(error, (APIResponseError, APIStatusError)) or not can_never_succeed(error):
        return None
    message = without_ids(error.message, error.request_id)
    return type(error), error.status_code, error.code, error.param, re.sub(r"\d+", "0", message)


def _summary_of(error: ChatPoolError) -> str:
    return f"{type(error).__name__}: {error.message}"


# An answer came, and was not accepted.
_OF_THE_ANSWER = (ParseError, LengthError, ContentFilterError)


def state_of(outcome: Outcome[Any]) -> Optional[str]:
    """Return the state of the item in a journal's record; None if it counts as never sent.

    That is an item that was cancelled, that met a limit per day, that was given up because of another item's failure,
    or that was still waiting when the run ended.
    """
    from .._journal import FAILED, OK, RETRY  # only runs with a journal ask

    error = outcome.error
    if error is None:
        return OK
    if isinstance(error, _OF_THE_ANSWER):
        return FAILED
    if isinstance(error, (CallCancelledError, DayLimitError, PoolClosedError)) or _is_copied(error):
        return None
    if isinstance(error, ConfigurationError) or can_never_succeed(error):
        return FAILED
    return RETRY if outcome.attempts or type(error) is ChatPoolError else None


def can_never_succeed(error: ChatPoolError) -> bool:
    """Return whether the same request would fail in the same way again."""
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
    # Some servers answer 400 where the key or the model is wrong: with another one the request may succeed.
    return rule.kind != "fatal" if is_request else rule.is_permanent


def may_succeed_in_parts(error: ChatPoolError) -> bool:
    """Return whether a failure that came twice may be due to one of the request's texts, or to their number."""
    if _is_copied(error):
        return False
    if isinstance(error, (APIResponseError, APITimeoutError)):
        return True
    if not isinstance(error, APIError) or error.status_code is None:
        return False
    rule = rule_of_error(error)
    return rule.kind == "timeout" or rule.about == "content"


def _is_copied(error: ChatPoolError) -> bool:
    """Return whether this is a copy of another call's error, which ended other calls too."""
    cause = error.__cause__
    return isinstance(cause, ChatPoolError) and type(cause) is type(error) and not isinstance(error, ConfigurationError)
