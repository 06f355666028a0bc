"""How the calls of one method call are sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Mapping, Optional

from ..config import RetryPolicyLike, Timeout, TimeoutLike
from ..engine import CallOptions, Dispatcher, Reading, Reviewer, collect
from ..policy.retry import Retrier
from .core import Core
from .options import Defaults
from .parsing import Parse
from .review import Accept, reviewer_of

__all__ = ["CallSettings"]


@dataclass(frozen=True)
class CallSettings:
    """Time limits, retries, headers and URL parameters, and what reads and looks at answers."""

    timeout: Timeout
    retrier: Retrier
    dispatcher: Dispatcher
    headers: Mapping[str, str]
    query: Mapping[str, str]
    priority: int = 0
    review: Optional[Reviewer] = None
    reading: Optional[Reading] = None

    @cached_property
    def singular(self) -> CallOptions:
        """For calls that are alone; one object, however many calls there are."""
        return replace(self.of_run(self.dispatcher, None), singular=True)

    def of_run(
        self, dispatcher: Dispatcher, deadline: Optional[float], *, ends_when_refused: bool = True
    ) -> CallOptions:
        """For the calls of a run."""
        return CallOptions(
            self.timeout,
            self.retrier,
            dispatcher,
            self.headers,
            self.query,
            deadline,
            self.priority,
            review=self.review,
            reading=self.reading,
            ends_when_refused=ends_when_refused,
        )

    def reviewed(self, parse: Optional[Parse], max_reasks: Optional[int], accept: Optional[Accept]) -> CallSettings:
        """The same for calls whose answers are looked at, if they are to be.

        Raises:
            TypeError, ConfigurationError: a value that cannot work; the message names the keyword.
        """
        review = reviewer_of(parse, max_reasks, accept)
        return self if review is None else replace(self, review=review)

    def collected(self, collect_stream: bool) -> CallSettings:
        """The same for calls whose answers are collected from streams, if they are to be.

        Raises:
            TypeError: the value is no bool.
        """
        if not isinstance(collect_stream, bool):
            raise TypeError(f"collect_stream must be True or False, got {collect_stream!r}")
        return replace(self, reading=collect) if collect_stream else self

    @classmethod
    def of(
        cls,
        core: Core,
        defaults: Defaults,
        timeout: Optional[TimeoutLike],
        retry: Optional[RetryPolicyLike],
        headers: Optional[Mapping[str, str]],
        query: Optional[Mapping[str, str]],
        priority: Optional[int],
    ) -> CallSettings:
        """A pool's defaults, with what the method call says over them.

        Raises:
            TypeError, ConfigurationError: a value that cannot work; the message names the keyword.
        """
        changes = {"timeout": timeout, "retry": retry, "headers": headers, "query": query, "priority": priority}
        said = defaults.changed(**{name: value for name, value in changes.items() if value is not None})
        return cls(
            said.timeout,
            Retrier(said.retry, core.engine.max_workers),
            core.dispatcher,
            {**defaults.headers, **said.headers},
            {**defaults.query, **said.query},
            said.priority,
            said.answers.reviewer(),
            collect if said.collect_stream else None,
        )
