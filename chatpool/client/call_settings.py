"""How the calls of one method call are sent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Mapping, Optional

from ..config import RetryPolicyLike, Timeout, TimeoutLike
from ..engine import CallOptions, Dispatcher
from ..policy.retry import Retrier
from .core import Core
from .options import Defaults

__all__ = ["CallSettings"]


@dataclass(frozen=True)
class CallSettings:
    """Time limits, retries, headers and URL parameters."""

    timeout: Timeout
    retrier: Retrier
    dispatcher: Dispatcher
    headers: Mapping[str, str]
    query: Mapping[str, str]

    @cached_property
    def singular(self) -> CallOptions:
        """For calls that are alone; one object, however many calls there are."""
        return CallOptions(self.timeout, self.retrier, self.dispatcher, self.headers, self.query, singular=True)

    def of_run(self, dispatcher: Dispatcher, deadline: Optional[float]) -> CallOptions:
        """For the calls of a run."""
        return CallOptions(self.timeout, self.retrier, dispatcher, self.headers, self.query, deadline)

    @classmethod
    def of(
        cls,
        core: Core,
        defaults: Defaults,
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
            Retrier(said.retry, core.engine.max_workers),
            core.dispatcher,
            {**defaults.headers, **said.headers},
            {**defaults.query, **said.query},
        )
