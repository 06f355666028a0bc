"""How the calls of one method call are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional

from ..config import RetryPolicyLike, Timeout, TimeoutLike
from ..policy.retry import Retrier
from .options import Defaults

__all__ = ["CallSettings"]


@dataclass(frozen=True)
class CallSettings:
    """Time limits, retries, headers and URL parameters."""

    timeout: Timeout
    retrier: Retrier
    headers: Mapping[str, str]
    query: Mapping[str, str]

    @classmethod
    def of(
        cls,
        defaults: Defaults,
        max_workers: int,
        timeout: Optional[TimeoutLike],
        retry: Optional[RetryPolicyLike],
        headers: Optional[Mapping[str, str]],
        query: Optional[Mapping[str, str]],
    ) -> CallSettings:
        """A pool's defaults, with what the method call says over them.

        Raises:
            TypeError, ConfigurationError: a value that cannot work; the message names the keyword.
        """
        changes = {"timeout": timeout, "retry": retry, "headers": headers, "query": query}
        said = defaults.changed(**{name: value for name, value in changes.items() if value is not None})
        return cls(
            said.timeout,
            Retrier(said.retry, max_workers),
            {**defaults.headers, **said.headers},
            {**defaults.query, **said.query},
        )
