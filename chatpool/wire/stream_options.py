"""Servers that do not know ``stream_options``."""

from __future__ import annotations

from ..types import ChatRequest, Reply
from .bodies import read_error

__all__ = ["refuses_usage", "without_usage"]

_FIELD = "stream_options"


def refuses_usage(reply: Reply, request: ChatRequest) -> bool:
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
