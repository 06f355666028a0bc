"""Operations of the API: their paths, and which of them stream, have a body and take ``stream_options``.

This is the one place that knows the paths.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Optional
from urllib.parse import quote

from .._values import BackgroundResponse, HTTPResponse
from ..types import ChatRequest
from .error_body import read_error

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "EMBEDDINGS",
    "IMAGES",
    "IMAGE_EDITS",
    "MODELS_REQUEST",
    "MODERATIONS",
    "OTHER",
    "PATHS",
    "RESPONSES",
    "SOUND_PATHS",
    "SPEECH",
    "TRANSCRIPTIONS",
    "TRANSLATIONS",
    "background_response",
    "is_background",
    "is_refusal",
    "is_streamed",
    "is_success",
    "may_be_cached",
    "operation_name",
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
SPEECH = "/audio/speech"
TRANSCRIPTIONS = "/audio/transcriptions"
TRANSLATIONS = "/audio/translations"
IMAGES = "/images/generations"
IMAGE_EDITS = "/images/edits"
OTHER = ""

PATHS = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MODERATIONS)  # CHAT first: it ends with COMPLETIONS
"""Paths of the operations whose requests and answers are known, and whose requests are text."""

SOUND_PATHS = (TRANSCRIPTIONS, TRANSLATIONS, SPEECH)
"""Paths of the operations that take or give sound."""

_ALL_PATHS = (*PATHS, *SOUND_PATHS, IMAGES, IMAGE_EDITS)

MODELS_REQUEST = ChatRequest({}, "/models", "GET")
"""Asks for the names of the server's models."""

_METHODS_WITHOUT_BODY = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
_STREAM_OPTIONS = "stream_options"
_ID_CHARACTERS = 1000


@lru_cache(maxsize=256)
def operation_of(path: str) -> str:
    """Return the operation that ``path`` ends with, :data:`OTHER` for every path that is not known.

    Only the end counts, so that ``/v1/chat/completions`` and Azure's
    ``/openai/deployments/<name>/chat/completions`` are chat too.
    """
    plain = path.partition("?")[0].rstrip("/")
    return next((operation for operation in _ALL_PATHS if plain.endswith(operation)), OTHER)


_NAMES = {CHAT: "chat", COMPLETIONS: "text_completion", RESPONSES: "responses", EMBEDDINGS: "embeddings"}


def operation_name(path: str) -> str:
    """Return the name of the operation in events, ``"request"`` for a path without one.

    OpenTelemetry's names (semantic conventions for generative AI, ``gen_ai.operation.name``), where it has any.
    """
    return _NAMES.get(operation_of(path), "request")


def is_streamed(request: ChatRequest) -> bool:
    """Return whether the answer to ``request`` may be a stream."""
    return request.method.upper() == "POST" and operation_of(request.path) in (CHAT, COMPLETIONS, RESPONSES)


def sends_no_body(request: ChatRequest) -> bool:
    """Return whether ``request`` goes out without a body: it has none, and its method needs none (RFC 9110, 9.3)."""
    return not request.body and request.method.upper() in _METHODS_WITHOUT_BODY


def is_background(request: ChatRequest) -> bool:
    """Return whether ``request`` asks for a response that is made in the background."""
    return bool(request.body.get("background")) and operation_of(request.path) == RESPONSES


# The answer depends on what the server has kept of earlier ones, or comes later.
_STATEFUL_FIELDS = ("previous_response_id", "conversation", "background")


def may_be_cached(request: ChatRequest) -> bool:
    """Return whether the answer to ``request`` depends on nothing but the request, and changes nothing at the server.

    These are the operations that ask a model for something; not streams, nor responses that belong to a conversation.
    """
    if request.method.upper() != "POST" or request.body.get("stream"):
        return False
    operation = operation_of(request.path)
    return operation in _ALL_PATHS and not (
        operation == RESPONSES and any(request.body.get(name) for name in _STATEFUL_FIELDS)
    )


def background_response(request: ChatRequest, response_id: Any) -> Optional[BackgroundResponse]:
    """Return the response that ``request`` has started, by the server's name for it; None for what can be no name."""
    if not isinstance(response_id, str) or not response_id.strip(".") or len(response_id) > _ID_CHARACTERS:
        return None
    path, mark, query = request.path.partition("?")
    own = f"{path.rstrip('/')}/{quote(response_id, safe='', errors='replace')}"
    poll = ChatRequest({}, f"{own}{mark}{query}", "GET")
    return BackgroundResponse(response_id, poll, ChatRequest({}, f"{own}/cancel{mark}{query}"))


def refuses_usage(response: HTTPResponse, request: ChatRequest) -> bool:
    """Return whether the server refuses a stream because of ``stream_options``, which the caller has not asked for.

    Servers that check their input by a schema do so (a 400 or 422 that names the field); others ignore it.
    """
    if response.status not in (400, 422) or _STREAM_OPTIONS in request.body:
        return False
    error = read_error(response.content)
    return error.param == _STREAM_OPTIONS or _STREAM_OPTIONS in error.message or _STREAM_OPTIONS in str(error.body)


def without_usage(request: ChatRequest) -> ChatRequest:
    """Return ``request`` for a stream whose usage is not asked for."""
    return ChatRequest({**request.body, _STREAM_OPTIONS: None}, request.path, request.method)


def is_success(status: int) -> bool:
    """Return whether a response of this status has what was asked for (a 2xx)."""
    return 200 <= status < 300


def is_refusal(status: int) -> bool:
    """Return whether a status says that the server refuses the request, stream or not (a 4xx)."""
    return 400 <= status < 500
