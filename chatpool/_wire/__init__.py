"""Between the API's JSON and chatpool's types: pure functions.

Nothing outside this room knows the API's status codes, headers and JSON fields.
"""

from __future__ import annotations

from .classification import as_truncated, chunk_of, classify_response, classify_stream, streamed
from .codec import EMPTY_CELL, encode, is_missing, table_advice
from .error_body import without_secrets
from .exceptions import ResponseTooLarge, UnreadableAnswer, classify_exception
from .operations import is_streamed, refuses_usage, sends_no_body, without_usage
from .request import embedding_request, renamed, responses_request, to_request
from .response import is_event_stream
from .stream import StreamFault, StreamReader

__all__ = [
    "EMPTY_CELL",
    "ResponseTooLarge",
    "StreamFault",
    "StreamReader",
    "UnreadableAnswer",
    "as_truncated",
    "chunk_of",
    "classify_exception",
    "classify_response",
    "classify_stream",
    "embedding_request",
    "encode",
    "is_event_stream",
    "is_missing",
    "is_streamed",
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
