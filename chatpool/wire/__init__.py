"""Between the API's JSON and chatpool's types: pure functions.

Nothing outside this room knows the API's status codes, headers and JSON fields.
"""

from __future__ import annotations

from .codec import encode
from .failures import ResponseTooLarge, judge_exception
from .redirects import redirect_target
from .requests import embedding_request, to_request
from .verdict import judge_reply

__all__ = [
    "ResponseTooLarge",
    "embedding_request",
    "encode",
    "judge_exception",
    "judge_reply",
    "redirect_target",
    "to_request",
]
