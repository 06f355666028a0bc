"""A pool's defaults, and what one method call makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Dict, Mapping, Optional

from ..config import RetryPolicy, Timeout
from ..redaction import secret
from ..transport import check_headers
from ..types import ChatRequest
from ..wire import encode, to_request
from .review import AnswerRules

__all__ = ["Defaults", "RequestMaker", "body_fields"]

# Keywords of runs, and of calls with whole answers, given to a method that has no use for them.
_RUNS_ONLY = frozenset(
    {"prompt", "progress", "on_error", "buffersize", "run_timeout", "journal", "dedupe", "max_failures"}
)
_ANSWERS_ONLY = frozenset({"parse", "max_reasks", "accept", "collect_stream"})


@dataclass(frozen=True)
class Defaults:
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

    def changed(self, **changes: Any) -> Defaults:
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
        self, defaults: Defaults, system: Optional[str], extra: Mapping[str, Any], *, streams: bool = False
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
