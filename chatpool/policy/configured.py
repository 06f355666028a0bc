"""The limits a user has set, for one (endpoint, model)."""

from __future__ import annotations

import math
from typing import Optional

from ..config import Limits
from .buckets import Bucket, MinuteWindow

__all__ = ["ConfiguredLimits"]


class ConfiguredLimits:
    """Requests and tokens per minute, taken in one step by the call that is next in its line.

    Args:
        limits: the settings; at least one limit is set.
    """

    __slots__ = ("_requests", "_token_window", "_tokens", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._requests: Optional[Bucket] = None
        self._tokens: Optional[Bucket] = None
        if limits.requests_per_minute is not None:
            requests = math.floor(limits.requests_per_minute)
            self._requests = Bucket(requests, requests / 60 * limits.burst, unit=1.0)
        if limits.tokens_per_minute is not None:
            per_minute = limits.tokens_per_minute
            self._tokens = Bucket(per_minute, per_minute / 60 * limits.burst)
            self._token_window = MinuteWindow(per_minute)

    def too_large(self, tokens: float) -> Optional[str]:
        """Why a request of so many tokens can never be sent, None if it can."""
        limit = self.limits.tokens_per_minute
        if limit is None or tokens <= limit:
            return None
        return (
            f"the request needs about {tokens:,.0f} tokens (prompt and longest answer), more than "
            f"Limits(tokens_per_minute={limit:,.0f}) allows in a minute: shorten it, or lower its max_tokens"
        )

    def wait(self, now: float, tokens: float) -> float:
        """Seconds until a request of so many tokens may be sent."""
        wait = 0.0
        if self._requests is not None:
            wait = self._requests.wait(now, 1.0)
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait(now, tokens), self._token_window.wait(now, tokens))
        return wait

    def sent(self, now: float, tokens: float) -> None:
        """A request of so many tokens goes out."""
        if self._requests is not None:
            self._requests.take(now, 1.0)
        if self._tokens is not None:
            self._tokens.take(now, tokens)
            self._token_window.take(now, tokens)

    def corrected(self, sent_at: float, now: float, tokens: float, used: float) -> None:
        """A request that was sent as one of ``tokens`` has used ``used``; a minute's worth at most counts.

        It is over by then in any case, and answers may state what cannot be, many of them at once.
        """
        used = min(used, self.limits.tokens_per_minute or 0.0)
        if self._tokens is None or used == tokens:
            return
        if used < tokens:
            self._tokens.give_back(now, tokens - used)
        else:
            self._tokens.take_late(now, used - tokens)
        self._token_window.correct(sent_at, used - tokens)
