"""Answers that are looked at before the call ends: taken, asked for again, or refused."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

from ..errors import ChatPoolError
from ..types import ChatRequest

__all__ = ["Review", "Reviewer"]


class Review(NamedTuple):
    """What becomes of an answer: it is taken (as ``value``), or ``request`` is sent, or the call ends with ``error``.

    Attributes:
        value: what the caller gets.
        request: the next request; its path and model are those of the one before.
        error: why the call fails.
        reason: why the answer was not taken, in a few words of ours: it stands in the history and in events.
    """

    value: Any = None
    request: Optional[ChatRequest] = None
    error: Optional[ChatPoolError] = None
    reason: str = "ok"


Reviewer = Callable[[ChatRequest, Any, int], Review]
"""Takes the request, the answer's value, and how often the call has been asked again; never raises.

It is called in the worker that has the answer, in the context of whoever made the call and with no lock held.  The
server has answered by then: the time it takes counts against the call's, and holds up nothing but this worker.
"""
