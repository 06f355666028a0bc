"""Which operation of the API a path stands for.

Servers that do not know ``stream_options``.
"""

from __future__ import annotations

from functools import lru_cache

from .._values import HTTPResponse
from ..types import ChatRequest
from .error_body import read_error

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "EMBEDDINGS",
    "MODERATIONS",
    "OTHER",
    "RESPONSES",
    "is_streamed",
    "operation_of",
    "refuses_usage",
    "sends_no_body",
    "without_usage",
]


CHAT = "/chat/completions"
COMPLETIONS = "/completions"
RESPONSES = "/responses"
EMBEDDINGS = "/embeddings"
MODERATIONS = "/moderations"
OTHER = ""

_BODILESS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})

# CHAT before COMPLETIONS: the one ends with the other.
_KNOWN = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MODERATIONS)


@lru_cache(maxsize=256)
def operation_of(path: str) -> str:
    """The operation that ``path`` ends with, :data:`OTHER` for every path that is not known.

    Only the end counts, so that ``/v1/chat/completions`` and Azure's
    ``/openai/deployments/<name>/chat/completions`` are chat too.
    """
    plain = path.partition("?")[0].rstrip("/")
    return next((operation for operation in _KNOWN if plain.endswith(operation)), OTHER)


def is_streamed(request: ChatRequest) -> bool:
    """Whether the answer to ``request`` may be a stream."""
    return request.method.upper() == "POST" and operation_of(request.path) in (CHAT, COMPLETIONS, RESPONSES)


def sends_no_body(request: ChatRequest) -> bool:
    """Whether ``request`` goes out without a body: it was given none, and its method needs none (RFC 9110, 9.3)."""
    return not request.body and request.method.upper() in _BODILESS


_FIELD = "stream_options"


def refuses_usage(reply: HTTPResponse, request: ChatRequest) -> bool:
    """Whether the server refuses a stream because of ``stream_options``, which the caller has not asked for.

    Servers that check their input by a schema do so (a 400 or 422 that names the field); others ignore it.
    """
    if reply.status not in (400, 422) or _FIELD in request.body:
        return False
    facts = read_error(reply.content)
    return facts.param == _FIELD or _FIELD in facts.message or _FIELD in str(facts.body)


def without_usage(request: ChatRequest) -> ChatRequest:
    """``request`` for a stream whose usage is not asked for."""
    return ChatRequest({**request.body, _FIELD: None}, request.path, request.method)
