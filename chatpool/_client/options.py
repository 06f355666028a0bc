"""From the keywords of a method call, and the defaults of its pool, to requests and to the engine's ``CallOptions``.

:class:`CallDefaults` belong to a pool or to a view of it.  :func:`call_options` puts the keywords of one method call
over them, :func:`answer_options` what reads and reviews the answers, :func:`run_call_options` what the calls of one
run share.  A :class:`RequestMaker` makes the request of each item.  :func:`recorded_options` is what a journal says of
all this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Callable, Dict, Literal, Optional, Tuple

from .._engine import CallOptions, Dispatcher, Fallback, Fallbacks, Reading, collect_chunks
from .._policy.retry import RetryDecider
from .._redaction import secret
from .._structured.validation import Accept, AnswerRules, reviewer_of
from .._transport import check_headers
from .._typing import Parse
from .._wire import encode, to_request, without_secrets
from ..config import RetryPolicy, Timeout
from ..errors import ConfigurationError
from ..types import ChatRequest
from .core import PoolCore
from .time_budget import deadline_on

__all__ = [
    "CallDefaults",
    "RequestMaker",
    "WhenDown",
    "answer_options",
    "body_fields",
    "call_options",
    "recorded_options",
    "run_call_options",
    "streamed_options",
]


# Keywords of runs, and of calls with whole answers: a method that has no use for them refuses them.
_RUNS_ONLY = frozenset(
    {
        "prompt",
        "progress",
        "on_error",
        "buffersize",
        "run_timeout",
        "journal",
        "dedupe",
        "max_failures",
        "heartbeat",
        "key",
        "samples",
    }
)
_ANSWERS_ONLY = frozenset({"parse", "max_reasks", "accept", "collect_stream"})


WhenDown = Literal["wait", "raise"]


@dataclass(frozen=True)
class CallDefaults:
    """Values of a pool, or of a view of it, for what a call does not say.

    ``answers``, ``collect_stream``, ``max_pack`` and ``samples`` are for batch runs only.
    """

    model: Optional[str] = None
    system: Optional[str] = None
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    when_down: WhenDown = "wait"
    wait_for_day: bool = False
    timeout: Timeout = field(default_factory=Timeout)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    fallbacks: Tuple[Fallback, ...] = ()
    answers: AnswerRules = AnswerRules()
    collect_stream: bool = False
    max_pack: Optional[int] = None
    samples: int = 1

    def changed(self, **changes: Any) -> CallDefaults:
        """Return a copy with other values; ``timeout`` and ``retry`` may be shorthands, ``fallbacks`` may not.

        Raises:
            TypeError: a keyword that is no default of a pool, or a value of the wrong type.
        """
        if "defaults" in changes:
            changes["body"] = changes.pop("defaults")
        known = {field.name for field in fields(self)} - {"answers", "collect_stream", "max_pack", "samples"}
        for name in changes:
            if name not in known:
                raise TypeError(
                    f"with_options() got an unexpected keyword argument {name!r}; it takes model, system, defaults, "
                    "headers, query, priority, when_down, wait_for_day, timeout, retry and fallbacks"
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
        if self.when_down not in ("wait", "raise"):
            raise ConfigurationError(f'when_down must be "wait" or "raise", got {self.when_down!r}')
        if not isinstance(self.wait_for_day, bool):
            raise TypeError(f"wait_for_day must be True or False, got {self.wait_for_day!r}")
        for name in ("model", "system"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str, got {value!r}")
        for name, keyword in (("body", "defaults"), ("headers", "headers"), ("query", "query")):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{keyword} must be a dict, got {type(getattr(self, name)).__name__}")
        check_headers("headers", self.headers)


def body_fields(method: str, extra_body: Optional[Mapping[str, Any]], params: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the body fields that a method call adds: its unknown keywords, and ``extra_body`` over them.

    Raises:
        TypeError: a keyword that means something else than a body field, or a value that JSON has no form for.
        ConfigurationError: a value that JSON cannot hold, such as NaN.
    """
    for name in params:
        if name in _RUNS_ONLY or name in _ANSWERS_ONLY:
            raise TypeError(
                f"{method}() got an unexpected keyword argument {name!r}; to send a body field of that name, use "
                "extra_body="
            )
        if name == "stream" and params[name] and not method.startswith("stream"):
            raise TypeError(f"{method}() returns whole answers: leave out stream=True, or use pool.stream(...)")
    if extra_body is not None and not isinstance(extra_body, Mapping):
        raise TypeError(f"extra_body must be a dict, got {type(extra_body).__name__}")
    fields = {**params, **(extra_body or {})}
    if fields:
        encode(fields)  # raises once, before anything is sent, and not for every item
    return fields


class RequestMaker:
    """Make the requests of one method call, each of one item.

    Args:
        defaults: the pool's model, system message and body fields.
        system: the system message of this method call; None for the pool's.
        extra: body fields of this method call.
        streams: whether the requests are for streams, which say so themselves.
    """

    def __init__(
        self, defaults: CallDefaults, system: Optional[str], extra: Mapping[str, Any], *, streams: bool = False
    ) -> None:
        self._model = defaults.model
        self._system = defaults.system if system is None else system
        self._body = defaults.body
        self._extra = extra
        self._streams = streams

    @property
    def options(self) -> Dict[str, Any]:
        """The model and the body fields of its requests."""
        body_fields = {**self._body, **self._extra}
        return {"model": body_fields.pop("model", self._model), "parameters": body_fields}

    def __call__(self, item: Any) -> ChatRequest:
        """Return the request of ``item``.

        Raises:
            TypeError: the item is of no kind that is known.
        """
        if not self._streams:
            return to_request(item, model=self._model, system=self._system, defaults=self._body, extra=self._extra)
        item, body, extra = (_without_stream(part) for part in (item, self._body, self._extra))
        return to_request(item, model=self._model, system=self._system, defaults=body, extra=extra)


def _without_stream(part: Any) -> Any:
    """Return an item, or body fields, without ``stream``: calls for streams set it themselves."""
    if isinstance(part, ChatRequest) and "stream" in part.body:
        return replace(part, body=_without_stream(part.body))
    if isinstance(part, Mapping) and "stream" in part:
        return {name: value for name, value in part.items() if name != "stream"}
    return part


def call_options(core: PoolCore, defaults: CallDefaults, changes: Mapping[str, Any]) -> CallOptions:
    """Return the options of a single call.

    Args:
        core: of the pool.
        defaults: of the pool or its view.
        changes: keywords of the method call: ``timeout``, ``retry``, ``headers``, ``query``, ``priority``,
            ``when_down``, ``wait_for_day``, ``fallbacks``.

    Raises:
        TypeError, ConfigurationError: a value that cannot work; the message names the keyword.
    """
    changed = defaults.changed(**changes)
    return CallOptions(
        changed.timeout,
        RetryDecider(changed.retry, core.engine.max_workers),
        core.dispatcher,
        {**defaults.headers, **changed.headers},
        {**defaults.query, **changed.query},
        deadline=deadline_on(core.engine.clock),
        deadline_limit="chatpool.deadline",
        priority=changed.priority,
        fails_when_down=changed.when_down == "raise",
        waits_for_day=changed.wait_for_day,
        is_single=True,
        review=changed.answers.reviewer(),
        reading=collect_chunks if changed.collect_stream else None,
        fallbacks=Fallbacks(changed.fallbacks) if changed.fallbacks else None,
    )


def answer_options(
    options: CallOptions,
    parse: Optional[Parse],
    max_reasks: Optional[int],
    accept: Optional[Accept],
    collect_stream: bool,
) -> CallOptions:
    """Return options with what reads and reviews answers, as far as the method call says so.

    Raises:
        TypeError, ConfigurationError: a value that cannot work; the message names the keyword.
    """
    if parse is not None or max_reasks is not None or accept is not None:
        options = replace(options, review=reviewer_of(parse, max_reasks, accept))
    if not isinstance(collect_stream, bool):
        raise TypeError(f"collect_stream must be True or False, got {collect_stream!r}")
    return replace(options, reading=collect_chunks) if collect_stream else options


def streamed_options(options: CallOptions, reading: Reading) -> CallOptions:
    """Return the options of calls whose chunks are given away: a block's deadline is for their beginning only."""
    return replace(options, reading=reading, deadline=None, begins_by=options.deadline)


def run_call_options(
    options: CallOptions, dispatcher: Dispatcher, deadline: Optional[float] = None, *, ends_when_refused: bool = True
) -> CallOptions:
    """Return options of a single call as those of a run's calls; arguments as in :class:`CallOptions`."""
    if deadline is None or (options.deadline is not None and options.deadline < deadline):
        deadline, limit = options.deadline, options.deadline_limit
    else:
        limit = "run_timeout"
    return replace(
        options,
        is_single=False,
        fails_when_down=False,
        dispatcher=dispatcher,
        deadline=deadline,
        deadline_limit=limit,
        ends_when_refused=ends_when_refused,
        fallbacks=None if options.fallbacks is None else options.fallbacks.for_run(),
    )


_WORD = r"\w[\w.+-]*([/:]\w[\w.+-]*)*"  # "auto", "gpt-x:free", "org/model"; no sentence, address or URL
_WORD_CHARACTERS, _NAMES_CHARACTERS = 40, 80
_HIDDEN_NAME = r"(?i)(key|secret|passw\w*|token|auth\w*|credentials?|cookie|signature)$"


def recorded_options(
    core: PoolCore, options: CallOptions, make_request: Callable[[Any], ChatRequest], **more: Any
) -> Dict[str, Any]:
    """Return the options of a run for its journal: nothing that is None, no key, no header, no prompt.

    Args:
        core: of the pool.
        options: of the calls.
        make_request: makes their requests; those of a :class:`RequestMaker` have a model and body fields.
        more: further options.
    """
    requests = make_request.options if isinstance(make_request, RequestMaker) else {}
    parameters = {name: _shown(name, value) for name, value in requests.get("parameters", {}).items()}
    endpoints = {endpoint.spec.name: endpoint for endpoint in core.engine.endpoints}
    limits = {name: _fields(endpoint.spec.limits, "scope") for name, endpoint in endpoints.items()}
    urls = {name: without_secrets(endpoint.transport.base_url) for name, endpoint in endpoints.items()}
    several = len(endpoints) > 1
    recorded = {
        "model": requests.get("model"),
        "max_workers": core.engine.max_workers,
        "base_url": None if several else next(iter(urls.values())),
        "endpoints": urls if several else None,
        "limits": limits if several else next(iter(limits.values())),
        "budget": _fields(core.budget, "prices"),
        "timeout": _fields(options.timeout),
        "retry": _fields(options.retrier.policy),
        "parameters": parameters,
        "fallbacks": None if options.fallbacks is None else [_described(each) for each in options.fallbacks.entries],
        **more,
    }
    return {name: value for name, value in recorded.items() if value not in (None, {})}


def _described(fallback: Fallback) -> Any:
    """Return a fallback for a journal: the name of an endpoint, or the body fields."""
    return fallback.endpoint or {name: _shown(name, value) for name, value in fallback.changes.items()}


def _fields(settings: Any, *left_out: str) -> Dict[str, Any]:
    """Return the fields of settings that are not None; the name of a function for a function."""
    names = [each.name for each in fields(settings) if each.name not in left_out] if settings is not None else []
    values = {name: getattr(settings, name) for name in names}
    return {
        name: value if isinstance(value, (int, float, str)) else getattr(value, "__name__", type(value).__name__)
        for name, value in values.items()
        if value is not None
    }


def _shown(name: str, value: Any) -> Any:
    """Return a body field as a journal shows it: no text but a word, and nothing where a key may be."""
    if re.search(_HIDDEN_NAME, name):
        return "***"
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}"[:_NAMES_CHARACTERS]
    if isinstance(value, (list, tuple)):
        return f"[{len(value)}]"
    if isinstance(value, (int, float, type(None))):
        return value
    text = str(value)
    is_word = len(text) <= _WORD_CHARACTERS and re.fullmatch(_WORD, text)
    return text if is_word else f"{len(text):,} characters"
