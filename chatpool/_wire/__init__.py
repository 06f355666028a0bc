"""Translate between the API's JSON and chatpool's types: pure functions.

Nothing outside this package knows the API's paths, status codes, headers and JSON fields.
"""

from __future__ import annotations

from .classification import as_truncated, chunk_of, classify_response, classify_stream, streamed
from .codec import EMPTY_CELL, encode, is_missing, table_advice
from .encoding import AttachedPayload, Encoded, Payload, identity_of, payload_of
from .error_body import without_secrets
from .exceptions import ResponseTooLarge, UnreadableAnswer, classify_exception
from .operations import (
    MODELS_REQUEST,
    is_refusal,
    is_streamed,
    operation_name,
    refuses_usage,
    sends_no_body,
    without_usage,
)
from .rate_limit_headers import describe_limits
from .request import embedding_request, renamed, responses_request, to_request
from .response import is_event_stream, model_and_reason, model_names_in
from .stream import StreamFault, StreamReader

__all__ = [
    "EMPTY_CELL",
    "MODELS_REQUEST",
    "AttachedPayload",
    "Encoded",
    "Payload",
    "ResponseTooLarge",
    "StreamFault",
    "StreamReader",
    "UnreadableAnswer",
    "as_truncated",
    "chunk_of",
    "classify_exception",
    "classify_response",
    "classify_stream",
    "describe_limits",
    "embedding_request",
    "encode",
    "identity_of",
    "is_event_stream",
    "is_missing",
    "is_refusal",
    "is_streamed",
    "model_and_reason",
    "model_names_in",
    "operation_name",
    "payload_of",
    "refuses_usage",
    "renamed",
    "responses_request",
    "sends_no_body",
    "streamed",
    "table_advice",
    "to_request",
    "without_secrets",
    "without_usage",
]
