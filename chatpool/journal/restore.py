"""Errors as JSON and back."""

from __future__ import annotations

import base64
from typing import Any, Dict, Mapping

from .. import errors
from ..errors import APIError, ChatPoolError

__all__ = ["error_facts", "error_of"]

_FACTS = ("status_code", "request_id", "code", "type", "param", "body", "retry_after")
_OF_SOME = ("text", "reason")  # of classes that add to APIError
_BYTES = "body_base64"  # the body of an answer that is not JSON


def error_facts(error: ChatPoolError) -> Dict[str, Any]:
    """What is kept of an error."""
    facts: Dict[str, Any] = {"class": type(error).__name__, "message": error.message}
    for name in _FACTS + _OF_SOME:
        value = getattr(error, name, None)
        # The text of a whole answer is in the answer, which is kept beside the facts.
        if value is not None and not (name == "text" and getattr(error, "completion", None) is not None):
            facts[name] = value
    if isinstance(facts.get("body"), bytes):
        facts[_BYTES] = base64.b64encode(facts.pop("body")).decode("ascii")
    return facts


def error_of(facts: Mapping[str, Any], attempts: int) -> ChatPoolError:
    """The error again; one of a class that does not exist any more is a plain ChatPoolError."""
    kind = getattr(errors, str(facts.get("class")), None)
    message = str(facts.get("message", ""))
    if not (isinstance(kind, type) and issubclass(kind, ChatPoolError)):
        return ChatPoolError(message, attempts=attempts)
    if not issubclass(kind, APIError):
        return kind(message, attempts=attempts)
    error = kind(message, attempts=attempts, **{name: facts.get(name) for name in _FACTS})
    error.__dict__.update({name: facts[name] for name in _OF_SOME if name in facts})
    if _BYTES in facts:
        error.body = base64.b64decode(facts[_BYTES])
    return error
