"""Shared limits of a pool, made from the scope that it shares them in."""

from __future__ import annotations

import time
from typing import Callable, Optional

from .._policy.day_window import DayLimits
from ..config import Limits
from .file import FileBackend, day_file_for, file_for, slug
from .redis import RedisBackend
from .scope import parse_scope
from .shared_limit import Backend, SharedLimit

__all__ = ["Sharing"]


class Sharing:
    """Factory of the shared limits of a pool, one for each (endpoint, model).

    Args:
        scope: a name, or the URL of a Redis with the name at its end.
        requests_per_minute, tokens_per_minute, burst: as in :class:`~chatpool.Limits`.
        day: the limits per day, None without any.
        now: a monotonic clock, for the time in which the other processes cannot be reached.

    Raises:
        TypeError, ConfigurationError: the scope cannot be read, or its package is not installed.
    """

    def __init__(
        self,
        scope: str,
        *,
        requests_per_minute: Optional[float] = None,
        tokens_per_minute: Optional[float] = None,
        burst: float = 1.0,
        day: Optional[DayLimits] = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scope = parse_scope(scope)
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._burst = burst
        self._day = day
        self._now = now
        self._backend("")  # so that a missing package is found here

    @classmethod
    def of(cls, limits: Limits, scope: str) -> Sharing:
        """Return a factory for the limits of a pool, shared in ``scope``."""
        return cls(
            scope,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            burst=limits.burst,
            day=DayLimits.of(limits.requests_per_day, limits.tokens_per_day),
        )

    def limit(self, endpoint: str, model: Optional[str]) -> SharedLimit:
        """Return the limit of the calls to ``model`` at ``endpoint``; nothing is opened before its first use."""
        return SharedLimit(
            self._backend(f"{endpoint}\n{model or ''}"),
            requests_per_minute=self._requests_per_minute,
            tokens_per_minute=self._tokens_per_minute,
            burst=self._burst,
            day=self._day,
            sharers=self._scope.sharers,
            now=self._now,
        )

    def _backend(self, upstream: str) -> Backend:
        name = self._scope.name
        if self._scope.redis is not None:
            return RedisBackend(self._scope.redis, f"{name}:{slug(upstream)}")
        day_path = None if self._day is None else day_file_for(f"{name}\n{upstream}")
        return FileBackend(file_for(f"{name}\n{upstream}"), day_path=day_path)
