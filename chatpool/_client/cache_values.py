"""The answers that the cache keeps: which, in which form, and back."""

from __future__ import annotations

import pathlib
from typing import Any, Optional

from .._files import atomic_replace
from .._journal import decode_value, encode_value
from .._wire.embeddings import answer_with
from .._wire.operations import EMBEDDINGS, operation_of
from .._wire.response import CONTENT_FILTER, decode_response, finish_reason_of
from .._wire.sampling import separate_answers
from ..types import ChatCompletion, ChatRequest

__all__ = ["encoded", "may_be_kept", "value_in"]


def may_be_kept(request: ChatRequest, value: Any) -> bool:
    """Return whether an answer is one of those that are kept.

    Not those of which a filter has cut one, or at one of which the model has failed; nor addresses of pictures, which
    lead there for an hour or so.
    """
    if isinstance(value, ChatCompletion):
        count = len(value.choices)
        answers = [value] if count == 1 else separate_answers(request, value)
        return len(answers) == count and all(finish_reason_of(each).meaning != CONTENT_FILTER for each in answers)
    parts = value.get("data") if isinstance(value, dict) else None
    return not any(isinstance(part, dict) and part.get("url") for part in (parts if isinstance(parts, list) else ()))


def encoded(request: ChatRequest, value: Any) -> bytes:
    """Return an answer as it is kept: as it came, where that is known."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, pathlib.Path):
        return value.read_bytes()
    if isinstance(value, ChatCompletion):
        content = value._raw  # bytes, unless the caller has asked for .raw
        return content if isinstance(content, bytes) else encode_value(content)
    if isinstance(value, list) and operation_of(request.path) == EMBEDDINGS:  # the vector of one text
        return encode_value(answer_with(value))
    return encode_value(value)


def value_in(request: ChatRequest, answer: bytes, request_id: Optional[str]) -> Any:
    """Return the value that the caller gets; the inverse of :func:`encoded`."""
    if request.response == "bytes":
        return answer
    if not isinstance(request.response, str):
        path = pathlib.Path(request.response)
        with atomic_replace(str(path)) as file:
            file.write(answer)
        return path
    value = decode_value(answer)
    return value if request.response == "text" else decode_response(request, value, request_id)
