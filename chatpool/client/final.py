"""Whether an outcome says something about its item for good."""

from __future__ import annotations

from typing import Any, Optional

from ..errors import (
    APIError,
    APIResponseError,
    APITimeoutError,
    BadRequestError,
    CallCancelledError,
    ChatPoolError,
    ConfigurationError,
    ContentFilterError,
    LengthError,
    ParseError,
    PoolClosedError,
    UnprocessableEntityError,
)
from ..journal import FAILED, OK, RETRY
from ..types import Outcome
from ..wire.answers import NOT_SUPPORTED
from ..wire.bodies import ErrorFacts
from ..wire.rules import Refusal, rule_for

__all__ = ["can_never_succeed", "may_go_in_parts", "state_of"]

# Refusals of one request, whatever else the server thinks of the caller.
_OF_THE_REQUEST = frozenset({"beyond the model", "can never fit", "of one request", "prompt flagged", "too large"})

_HTTP_OK = 200

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
    if isinstance(error, APIError) and error.code == NOT_SUPPORTED and error.status_code == _HTTP_OK:
        return True
    is_request = isinstance(error, (BadRequestError, UnprocessableEntityError))
    if not isinstance(error, APIError) or error.status_code is None:
        return is_request or (type(error) is ChatPoolError and isinstance(error.__cause__, (TypeError, ValueError)))
    facts = ErrorFacts(error.message, error.type, error.code)
    rule = rule_for(Refusal(error.status_code, facts, {}))
    # Some servers say with a 400 that the key or the model is wrong: with another one the request may succeed.
    return rule.kind != "fatal" if is_request else rule.name in _OF_THE_REQUEST


def may_go_in_parts(error: ChatPoolError) -> bool:
    """Recognise a failure that, where it came back, may be due to one of many texts, or to their number."""
    if _is_of_another(error):
        return False
    if isinstance(error, (APIResponseError, APITimeoutError)):
        return True
    if not isinstance(error, APIError) or error.status_code is None:
        return False
    rule = rule_for(Refusal(error.status_code, ErrorFacts(error.message, error.type, error.code), {}))
    return rule.kind == "timeout" or rule.about == "content"


def _is_of_another(error: ChatPoolError) -> bool:
    """An error that ends other calls too is copied for each of them."""
    cause = error.__cause__
    return isinstance(cause, ChatPoolError) and type(cause) is type(error) and not isinstance(error, ConfigurationError)
