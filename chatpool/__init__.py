"""Dependable mass calls to the ChatGPT API and any OpenAI-compatible server, from ordinary blocking Python."""

from __future__ import annotations

from .client import ChatPool, map  # noqa: A004 - chatpool.map is the one-shot form of ChatPool.map
from .config import RetryPolicy, Timeout
from .errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CallCancelledError,
    ChatPoolError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    InsufficientQuotaError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    PoolClosedError,
    RateLimitError,
    UnprocessableEntityError,
)
from .events import Event
from .types import (
    Attempt,
    ChatCompletion,
    ChatRequest,
    LineStats,
    Outcome,
    PoolStats,
    Results,
    ToolCall,
    Usage,
)

__version__ = "0.1.0"

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "CallCancelledError",
    "ChatCompletion",
    "ChatPool",
    "ChatPoolError",
    "ChatRequest",
    "ConfigurationError",
    "ConflictError",
    "DeadlineExceededError",
    "Event",
    "InsufficientQuotaError",
    "InternalServerError",
    "LineStats",
    "NotFoundError",
    "Outcome",
    "PermissionDeniedError",
    "PoolClosedError",
    "PoolStats",
    "RateLimitError",
    "Results",
    "RetryPolicy",
    "Timeout",
    "ToolCall",
    "UnprocessableEntityError",
    "Usage",
    "map",
]
