"""Between the API's JSON and chatpool's types: pure functions.

Nothing outside this room knows the API's status codes, headers and JSON fields.
"""

from __future__ import annotations

from .chunks import StreamFault, StreamReader
from .codec import encode
from .failures import ResponseTooLarge, UnreadableAnswer, judge_exception
from .kinds import is_event_stream
from .messages import without_secrets
from .paths import is_streamed, sends_no_body
from .plain import EMPTY_CELL, is_missing, table_advice
from .redirects import redirect_method, redirect_target
from .requests import embedding_request, renamed, responses_request, to_request
from .stream_options import refuses_usage, without_usage
from .streams import as_truncated, chunk_of, judge_stream, streamed
from .verdict import judge_reply

__all__ = [
    "EMPTY_CELL",
    "ResponseTooLarge",
    "StreamFault",
    "StreamReader",
    "UnreadableAnswer",
    "as_truncated",
    "chunk_of",
    "embedding_request",
    "encode",
    "is_event_stream",
    "is_missing",
    "is_streamed",
    "judge_exception",
    "judge_reply",
    "judge_stream",
    "redirect_method",
    "redirect_target",
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
