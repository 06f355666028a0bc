"""What is measured of requests and answers: numbers that are read off them in one room and reckoned with in another."""

from __future__ import annotations

from typing import NamedTuple, Optional

__all__ = ["LATENESS", "RequestSize", "StatedLimit"]

LATENESS = 0.5
"""Seconds after its reserved moment within which a call under a shared limit is sent.

Late calls and those that come in time fall into one minute: so shared limits are laid out for a minute and this."""


class RequestSize(NamedTuple):
    """What can be read off a request.

    Attributes:
        prompt_bytes: bytes of text in it, as UTF-8.
        other_tokens: tokens for what is no text (images, sound, files).
        completion_limit: the most tokens that one answer may have, None where it does not say.
        choices: how many answers it asks for; 0 where an answer takes no tokens.
    """

    prompt_bytes: int
    other_tokens: int = 0
    completion_limit: Optional[int] = None
    choices: int = 1


class StatedLimit(NamedTuple):
    """What a server says about one of its limits.

    Attributes:
        limit: units in all.
        remaining: units that were left.
        reset: seconds until all are there again, None where it does not say.
    """

    limit: float
    remaining: float
    reset: Optional[float] = None
