"""Dependable mass calls to the ChatGPT API and any OpenAI-compatible server, from ordinary blocking Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, List

from ._attachments import Attachment, attach
from ._client import Cache, ChatPool, ChatStream, Endpoint, StoredFiles, deadline, speech, transcription, translation
from ._client import map as map  # noqa: A004 - chatpool.map is the one-shot form of ChatPool.map
from ._observe import log_as_the_environment_says
from .config import Budget, Limits, RetryPolicy, Timeout
from .errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    CacheMissError,
    CallCancelledError,
    ChatPoolError,
    ConfigurationError,
    ConflictError,
    ContentFilterError,
    DayLimitError,
    DeadlineExceededError,
    InsufficientQuotaError,
    InternalServerError,
    JournalBusyError,
    JournalLostError,
    LengthError,
    NotFoundError,
    ParseError,
    PermissionDeniedError,
    PoolClosedError,
    RateLimitError,
    Reask,
    TooManyFailuresError,
    TruncatedStreamError,
    UnprocessableEntityError,
)
from .events import Event
from .types import (
    Attempt,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    LineStats,
    Outcome,
    PoolStats,
    Results,
    ToolCall,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from ._structured.json_schema import json_schema

__version__ = "0.1.0"

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "Attachment",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "Budget",
    "BudgetExceededError",
    "Cache",
    "CacheMissError",
    "CallCancelledError",
    "ChatChunk",
    "ChatCompletion",
    "ChatPool",
    "ChatPoolError",
    "ChatRequest",
    "ChatStream",
    "Choice",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterError",
    "DayLimitError",
    "DeadlineExceededError",
    "Endpoint",
    "Event",
    "InsufficientQuotaError",
    "InternalServerError",
    "JournalBusyError",
    "JournalLostError",
    "LengthError",
    "Limits",
    "LineStats",
    "NotFoundError",
    "Outcome",
    "ParseError",
    "PermissionDeniedError",
    "PoolClosedError",
    "PoolStats",
    "RateLimitError",
    "Reask",
    "Results",
    "RetryPolicy",
    "StoredFiles",
    "Timeout",
    "TooManyFailuresError",
    "ToolCall",
    "ToolCallDelta",
    "TruncatedStreamError",
    "UnprocessableEntityError",
    "Usage",
    "attach",
    "deadline",
    "json_schema",
    "map",
    "speech",
    "transcription",
    "translation",
]

log_as_the_environment_says()


def __getattr__(name: str) -> object:
    """``batch`` and ``json_schema`` are imported when they are first used: most programs never use them."""
    if name == "batch":
        return importlib.import_module(".batch", __name__)
    if name == "json_schema":
        return importlib.import_module("._structured.json_schema", __name__).json_schema
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__, "batch"})
