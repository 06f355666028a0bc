"""Translate between the API's JSON and chatpool's types: pure functions.

Nothing outside this package knows the API's paths, status codes, headers and JSON fields.
"""

from __future__ import annotations

from .attachments import with_parts
from .classification import as_truncated, chunk_of, classify_response, classify_stream, streamed
from .codec import EMPTY_CELL, encode, is_missing, table_advice
from .error_body import without_secrets
from .exceptions import ResponseTooLarge, UnreadableAnswer, classify_exception
from .form_fields import form_fields
from .operations import (
    MODELS_REQUEST,
    background_response,
    is_background,
    is_refusal,
    is_streamed,
    is_success,
    operation_name,
    refuses_usage,
    sends_no_body,
    without_usage,
)
from .polls import classify_poll
from .rate_limit_headers import describe_limits
from .request import check_response_form, embedding_request, renamed, responses_request, to_request
from .response import is_event_stream, model_and_reason, model_names_in
from .stream import StreamFault, StreamReader

__all__ = [
    "EMPTY_CELL",
    "MODELS_REQUEST",
    "ResponseTooLarge",
    "StreamFault",
    "StreamReader",
    "UnreadableAnswer",
    "as_truncated",
    "background_response",
    "check_response_form",
    "chunk_of",
    "classify_exception",
    "classify_poll",
    "classify_response",
    "classify_stream",
    "describe_limits",
    "embedding_request",
    "encode",
    "form_fields",
    "is_background",
    "is_event_stream",
    "is_missing",
    "is_refusal",
    "is_streamed",
    "is_success",
    "model_and_reason",
    "model_names_in",
    "operation_name",
    "refuses_usage",
    "renamed",
    "responses_request",
    "sends_no_body",
    "streamed",
    "table_advice",
    "to_request",
    "with_parts",
    "without_secrets",
    "without_usage",
]
