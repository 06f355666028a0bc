"""Dependable mass calls to the ChatGPT API and any OpenAI-compatible server, from ordinary blocking Python."""

from __future__ import annotations

import importlib

from .client import ChatPool, map  # noqa: A004 - chatpool.map is the one-shot form of ChatPool.map
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
    "Budget",
    "BudgetExceededError",
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
    "Limits",
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


def __getattr__(name: str) -> object:
    """``chatpool.batch`` is imported when it is first used: most programs never use it."""
    if name == "batch":
        return importlib.import_module(".batch", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
