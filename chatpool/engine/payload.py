"""What a call sends, and as what it is answered."""

from __future__ import annotations

from typing import Optional

from ..types import ChatRequest
from ..wire import encode, is_streamed, sends_no_body, streamed
from .streams import Reading, collect

__all__ = ["payload_of", "reading_of"]


def reading_of(request: ChatRequest, reading: Optional[Reading]) -> Optional[Reading]:
    """``reading``, but None for a request whose answer is to be collected from a stream and cannot be streamed."""
    return None if reading is collect and not is_streamed(request) else reading


def payload_of(request: ChatRequest, reading: Optional[Reading]) -> bytes:
    """The body of ``request``, encoded; as one for a stream if the answer is read as one.

    Raises:
        TypeError: it cannot be sent as JSON, or its path does not stream.
        ConfigurationError: a number in it cannot be sent as JSON.
    """
    if reading_of(request, reading) is not None:
        request = streamed(request)
    return b"" if sends_no_body(request) else encode(request.body)
