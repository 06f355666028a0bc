"""A pool's defaults, and what one method call makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Dict, Mapping, Optional

from ..config import RetryPolicy, Timeout
from ..types import ChatRequest
from ..wire import to_request

__all__ = ["Defaults", "RequestMaker", "body_fields"]

# Keywords of chatpool's own that do not exist in this version: they must not slip into a request's body.
_RESERVED = frozenset({"parse", "max_reasks", "accept", "collect_stream"})

# Keywords of runs, given to a method that has no use for them.
_RUNS_ONLY = frozenset({"prompt", "progress", "on_error", "buffersize", "run_timeout", "journal", "dedupe"})


@dataclass(frozen=True)
class Defaults:
    """What a pool, or a view of it, fills in where a call says nothing."""

    model: Optional[str] = None
    system: Optional[str] = None
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    timeout: Timeout = field(default_factory=Timeout)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def changed(self, **changes: Any) -> Defaults:
        """These defaults with some others; ``timeout`` and ``retry`` may be shorthands.

        Raises:
            TypeError: a keyword that is no default of a pool, or a value of the wrong type.
        """
        if "defaults" in changes:
            changes["body"] = changes.pop("defaults")
        known = {each.name for each in fields(self)}
        for name in changes:
            if name not in known:
                raise TypeError(
                    f"with_options() got an unknown keyword {name!r}; it takes model, system, defaults, headers, "
                    "query, timeout and retry"
                )
        if "timeout" in changes:
            changes["timeout"] = Timeout.of(changes["timeout"], self.timeout)
        if "retry" in changes:
            changes["retry"] = RetryPolicy.of(changes["retry"])
        checked = replace(self, **changes)
        checked._check()
        return checked

    def _check(self) -> None:
        for name in ("model", "system"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str, got {value!r}")
        for name, shown in (("body", "defaults"), ("headers", "headers"), ("query", "query")):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{shown} must be a dict, got {type(getattr(self, name)).__name__}")


def body_fields(method: str, extra_body: Optional[Mapping[str, Any]], params: Mapping[str, Any]) -> Dict[str, Any]:
    """The body fields a method call adds: its unknown keywords, and ``extra_body`` over them.

    Raises:
        TypeError: a keyword that means something else than a body field.
    """
    for name in params:
        if name in _RESERVED:
            raise TypeError(
                f"{method}() does not support {name}= in this version; "
                "to send a body field of that name, use extra_body="
            )
        if name in _RUNS_ONLY:
            raise TypeError(f"{method}() has no keyword {name}=; to send a body field of that name, use extra_body=")
        if name == "stream" and params[name]:
            raise TypeError(f"{method}() returns whole answers: leave out stream=True")
    if extra_body is not None and not isinstance(extra_body, Mapping):
        raise TypeError(f"extra_body must be a dict, got {type(extra_body).__name__}")
    return {**params, **(extra_body or {})}


class RequestMaker:
    """Makes the requests of one method call out of its items."""

    def __init__(self, defaults: Defaults, system: Optional[str], extra: Mapping[str, Any]) -> None:
        self._model = defaults.model
        self._system = defaults.system if system is None else system
        self._body = defaults.body
        self._extra = extra

    def __call__(self, item: Any) -> ChatRequest:
        """The request for ``item``.

        Raises:
            TypeError: it is none of the kinds of item.
        """
        return to_request(item, model=self._model, system=self._system, defaults=self._body, extra=self._extra)
