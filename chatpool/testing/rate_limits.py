"""Limits of a server: it answers 429 to requests beyond them."""

from __future__ import annotations

from typing import Optional, Protocol, Union

from ..errors import ConfigurationError
from .http_parts import HINTS
from .steps import Error, RateLimited

__all__ = ["Cap", "Limit", "Quota"]


class Limit(Protocol):
    """Decides whether a server accepts one more request; called by one thread at a time."""

    def refusal(self, now: float, in_flight: int) -> Union[RateLimited, Error, None]:
        """Return the refusal of a request that arrives at ``now``, with ``in_flight`` others; None accepts it."""


class Quota:
    """A rate limit: a token bucket that refuses requests with 429.  Refused requests cost nothing.

    Args:
        per_second: how many requests a second are accepted in the long run; or
        per_minute: the same, per minute.
        burst: how many are accepted at once after a quiet time. The bucket is full at first.
        hint: the form in which a refusal says when the next request would be accepted: one of :data:`HINTS` (exact
            with the default, ``"retry-after-ms"``), or None for refusals without a hint.

    Time is that of the installed clock, so a quota refills at once where waits are instant.

    Raises:
        ConfigurationError: not exactly one of the two rates, or a value out of range.
    """

    def __init__(
        self,
        *,
        per_second: Optional[float] = None,
        per_minute: Optional[float] = None,
        burst: int = 1,
        hint: Optional[str] = "retry-after-ms",
    ) -> None:
        if (per_second is None) == (per_minute is None):
            raise ConfigurationError("give one of per_second and per_minute")
        rate = per_second if per_second is not None else (per_minute or 0.0) / 60
        if not rate > 0 or burst < 1:
            raise ConfigurationError(f"the rate must be more than 0 and burst at least 1, got {rate!r} and {burst!r}")
        _check_hint(hint)
        self._rate = rate
        self._burst = float(burst)
        self._hint = hint
        self._tokens = self._burst
        self._updated_at: Optional[float] = None

    def refusal(self, now: float, in_flight: int) -> Optional[RateLimited]:
        """Take a token, or return a refusal with the time until there is one."""
        # The clock may go back when a test puts the former one in its place.
        elapsed = 0.0 if self._updated_at is None else max(0.0, now - self._updated_at)
        self._updated_at = now
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        # A client that waits exactly as long as the hint says must be accepted, whatever the rounding.
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return None
        return RateLimited((1 - self._tokens) / self._rate, hint=self._hint)


class Cap:
    """A limit of requests in flight: 429 for requests beyond it.

    Args:
        limit: how many requests may be in flight.
        hint: the form in which a refusal says when to come back: one of :data:`HINTS`, or None (the default).
        wait: the seconds that the hint says.

    Raises:
        ConfigurationError: a value out of range.
    """

    def __init__(self, limit: int, *, hint: Optional[str] = None, wait: float = 0.1) -> None:
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, got {limit!r}")
        self._limit = limit
        self._refusal = RateLimited(wait, hint=hint)

    def refusal(self, now: float, in_flight: int) -> Optional[RateLimited]:
        """Refuse when the limit is reached."""
        return self._refusal if in_flight >= self._limit else None


def _check_hint(hint: Optional[str]) -> None:
    if hint is not None and hint not in HINTS:
        raise ConfigurationError(f"hint must be None or one of {', '.join(HINTS)}, got {hint!r}")
