"""A pool's defaults, and what one method call makes of them.

How the calls of one method call are sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Dict, Mapping, Optional

from .._engine import CallOptions, Dispatcher, Reading, Reviewer, collect_chunks
from .._policy.retry import RetryDecider
from .._redaction import secret
from .._structured.parse import Parse
from .._structured.validation import Accept, AnswerRules, reviewer_of
from .._transport import check_headers
from .._wire import encode, to_request
from ..config import RetryPolicy, RetryPolicyLike, Timeout, TimeoutLike
from ..types import ChatRequest
from .core import PoolCore

__all__ = ["CallDefaults", "CallSettings", "RequestMaker", "body_fields"]


# Keywords of runs, and of calls with whole answers, given to a method that has no use for them.
_RUNS_ONLY = frozenset(
    {"prompt", "progress", "on_error", "buffersize", "run_timeout", "journal", "dedupe", "max_failures"}
)
_ANSWERS_ONLY = frozenset({"parse", "max_reasks", "accept", "collect_stream"})


@dataclass(frozen=True)
class CallDefaults:
    """What a pool, or a view of it, fills in where a call says nothing.

    ``answers``, ``collect_stream`` and ``max_pack`` are for batch runs only.
    """

    model: Optional[str] = None
    system: Optional[str] = None
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    timeout: Timeout = field(default_factory=Timeout)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    answers: AnswerRules = AnswerRules()
    collect_stream: bool = False
    max_pack: Optional[int] = None

    def changed(self, **changes: Any) -> CallDefaults:
        """These defaults with some others; ``timeout`` and ``retry`` may be shorthands.

        Raises:
            TypeError: a keyword that is no default of a pool, or a value of the wrong type.
        """
        if "defaults" in changes:
            changes["body"] = changes.pop("defaults")
        known = {each.name for each in fields(self)} - {"answers", "collect_stream", "max_pack"}
        for name in changes:
            if name not in known:
                raise TypeError(
                    f"with_options() got an unknown keyword {name!r}; it takes model, system, defaults, headers, "
                    "query, priority, timeout and retry"
                )
        if "timeout" in changes:
            changes["timeout"] = Timeout.of(changes["timeout"], self.timeout)
        if "retry" in changes:
            changes["retry"] = RetryPolicy.of(changes["retry"])
        for name in ("headers", "query"):
            changes[name] = secret(changes.get(name, getattr(self, name)))
        checked = replace(self, **changes)
        checked._check()
        return checked

    def _check(self) -> None:
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise TypeError(f"priority must be a whole number, got {self.priority!r}; as a body field: use extra_body=")
        for name in ("model", "system"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str, got {value!r}")
        for name, shown in (("body", "defaults"), ("headers", "headers"), ("query", "query")):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{shown} must be a dict, got {type(getattr(self, name)).__name__}")
        check_headers("headers", self.headers)


def body_fields(method: str, extra_body: Optional[Mapping[str, Any]], params: Mapping[str, Any]) -> Dict[str, Any]:
    """The body fields a method call adds: its unknown keywords, and ``extra_body`` over them.

    Raises:
        TypeError: a keyword that means something else than a body field, or a value that JSON has no form for.
        ConfigurationError: a value that JSON cannot hold, such as NaN.
    """
    for name in params:
        if name in _RUNS_ONLY or name in _ANSWERS_ONLY:
            raise TypeError(f"{method}() has no keyword {name}=; to send a body field of that name, use extra_body=")
        if name == "stream" and params[name] and not method.startswith("stream"):
            raise TypeError(f"{method}() returns whole answers: leave out stream=True, or use pool.stream(...)")
    if extra_body is not None and not isinstance(extra_body, Mapping):
        raise TypeError(f"extra_body must be a dict, got {type(extra_body).__name__}")
    fields = {**params, **(extra_body or {})}
    if fields:
        encode(fields)  # said once, before anything is sent, and not of every item
    return fields


class RequestMaker:
    """Makes the requests of one method call out of its items."""

    def __init__(
        self, defaults: CallDefaults, system: Optional[str], extra: Mapping[str, Any], *, streams: bool = False
    ) -> None:
        self._model = defaults.model
        self._system = defaults.system if system is None else system
        self._body = defaults.body
        self._extra = extra
        self._streams = streams

    def __call__(self, item: Any) -> ChatRequest:
        """The request for ``item``.

        Raises:
            TypeError: it is none of the kinds of item.
        """
        if not self._streams:
            return to_request(item, model=self._model, system=self._system, defaults=self._body, extra=self._extra)
        item, body, extra = (_without_stream(part) for part in (item, self._body, self._extra))
        return to_request(item, model=self._model, system=self._system, defaults=body, extra=extra)


def _without_stream(part: Any) -> Any:
    """An item, or fields of a body, without the word that they are for a stream: for calls that say so anyway."""
    if isinstance(part, ChatRequest) and "stream" in part.body:
        return replace(part, body=_without_stream(part.body))
    if isinstance(part, Mapping) and "stream" in part:
        return {name: value for name, value in part.items() if name != "stream"}
    return part


@dataclass(frozen=True)
class CallSettings:
    """Time limits, retries, headers and URL parameters, and what reads and looks at answers."""

    timeout: Timeout
    retrier: RetryDecider
    dispatcher: Dispatcher
    headers: Mapping[str, str]
    query: Mapping[str, str]
    priority: int = 0
    review: Optional[Reviewer] = None
    reading: Optional[Reading] = None

    @cached_property
    def singular(self) -> CallOptions:
        """For calls that are alone; one object, however many calls there are."""
        return replace(self.of_run(self.dispatcher, None), is_single=True)

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
        return replace(self, reading=collect_chunks) if collect_stream else self

    @classmethod
    def of(
        cls,
        core: PoolCore,
        defaults: CallDefaults,
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
            RetryDecider(said.retry, core.engine.max_workers),
            core.dispatcher,
            {**defaults.headers, **said.headers},
            {**defaults.query, **said.query},
            said.priority,
            said.answers.reviewer(),
            collect_chunks if said.collect_stream else None,
        )
