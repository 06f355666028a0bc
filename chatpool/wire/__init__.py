"""Between the API's JSON and chatpool's types: pure functions.

Nothing outside this room knows the API's status codes, headers and JSON fields.
"""

from __future__ import annotations

from .chunks import StreamFault, StreamReader
from .codec import encode
from .failures import ResponseTooLarge, judge_exception
from .messages import without_secrets
from .redirects import redirect_target
from .requests import embedding_request, renamed, responses_request, to_request
from .stream_options import can_stream, refuses_usage, without_usage
from .streams import as_truncated, chunk_of, is_event_stream, judge_stream, streamed
from .verdict import judge_reply

__all__ = [
    "ResponseTooLarge",
    "StreamFault",
    "StreamReader",
    "as_truncated",
    "can_stream",
    "chunk_of",
    "embedding_request",
    "encode",
    "is_event_stream",
    "judge_exception",
    "judge_reply",
    "judge_stream",
    "redirect_target",
    "refuses_usage",
    "renamed",
    "responses_request",
    "streamed",
    "to_request",
    "without_secrets",
    "without_usage",
]
