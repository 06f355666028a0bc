"""The part of the client that ``chatpool.batch`` uses; a batch run imports from no other module of this package.

* :func:`start_rows`: a run over rows whose outcomes are stored elsewhere, as a :class:`StoredRowsRun`.
* Questions about a pool (:func:`model_of`, :func:`needs_model` ...), and a view of it with the run's answer rules.
* :class:`WorkerPools` and :class:`RowBudget`: the same pool in several processes, with one budget.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
)
from urllib.parse import SplitResult, urlsplit

from .._engine import TIMED_OUT
from .._journal import OK, Record
from .._policy.budget import BudgetReservation, TokenEstimator
from .._quota import PrivateScope
from .._structured.validation import AnswerRules
from .._transport import Encoded, identity_of, payload_of, request_auth
from .._values import RequestSize
from .._wire import encode
from .._wire.embeddings import join_requests, shared_part
from .._wire.media import completed_sound, in_its_form, is_sound_request
from .._wire.request_size import request_size
from .._wire.sampling import refuse_unsampled, sampled_request
from ..config import Limits, Timeout
from ..errors import ConfigurationError
from ..events import Listener
from ..prices import Bill
from ..types import ChatRequest, Outcome, Usage
from .connect import PUBLIC_URL
from .embedding_batches import MAX_BATCH_TEXTS, PAUSE, EmbeddingRowsRun
from .failures import FailureLimit, MaxFailures, state_of
from .fallbacks import change_endpoints, limits_in
from .options import RequestMaker, body_fields, recorded_options, run_call_options
from .pickling import PoolRecipe, restore
from .pool import ChatPool
from .samples import KeptAnswers, SampledRowsRun
from .start_run import run_window
from .stored_runs import Backgrounds, StoredRowsRun, record_of, samples_mark
from .time_budget import seconds_left

if TYPE_CHECKING:
    from .run_cache import RunCache

__all__ = [
    "MAX_BATCH_TEXTS",
    "PAUSE",
    "ChatPool",
    "Encoded",
    "FailureLimit",
    "MaxFailures",
    "RowBudget",
    "StoredRowsRun",
    "WorkerPools",
    "base_urls",
    "has_cache",
    "has_version_in_url",
    "identity_of",
    "is_cached",
    "limits_of",
    "max_workers_of",
    "model_of",
    "needs_model",
    "payload_of",
    "pickled_arguments",
    "prompt_tokens",
    "record_of",
    "recorded_options_of",
    "refuse_unsampled",
    "request_facts",
    "request_maker",
    "row_fields",
    "sampled_request",
    "samples_mark",
    "seconds_left",
    "start_rows",
    "state_of",
    "timeout_of",
    "unpickle_pool",
    "with_answer_rules",
    "with_request_facts",
    "with_response_limit",
]


def start_rows(
    pool: ChatPool,
    rows: Iterable[Any],
    prepare: Callable[[Any], ChatRequest],
    persist: Callable[[Outcome[Any]], None],
    *,
    backgrounds: Optional[Backgrounds] = None,
    is_batched: bool = False,
    listeners: Sequence[Listener] = (),
    failure_limit: Optional[FailureLimit] = None,
    ends_when_refused: bool = True,
    kept: Optional[KeptAnswers] = None,
    occurrence_of: Optional[Callable[[Any], int]] = None,
) -> StoredRowsRun:
    """Return a run over rows; nothing is sent before it is consumed.

    Args:
        pool: makes the calls.
        rows: the input.
        prepare: makes the whole request of one.
        persist: stores the outcome of one; called in workers.
        backgrounds: knows where rows are made in the background; None where nothing does.
        is_batched: whether requests for embeddings are joined.
        listeners: get the events of these rows too.
        failure_limit: ends the run when too many rows have failed; None where another process counts.
        ends_when_refused: as in :class:`~chatpool._engine.CallOptions`.
        kept: returns the JSON of the samples of a row that an earlier run has brought, None without any.
        occurrence_of: returns the number of a row among those with the same request, from 0; for the cache.
    """
    engine = pool._core.engine
    dispatcher = pool._core.dispatcher.extended(listeners)
    # The end of a deadline is one of the whole run, whose rows stay pending.
    single = replace(pool._call_options(), deadline=None)
    options = run_call_options(single, dispatcher, ends_when_refused=ends_when_refused)
    if is_batched:
        window_batches, max_pack = 2 * engine.max_workers, pool._defaults.max_pack
        packed = EmbeddingRowsRun(engine, rows, prepare, options, window_batches, max_pack, persist=persist)
        packed.use_cache(_run_cache(pool, occurrence_of))
        run: StoredRowsRun = packed
    else:
        window, samples = run_window(engine.max_workers), pool._defaults.samples
        arguments = engine, rows, lambda row: _in_full(prepare(row)), options, window
        stores: Dict[str, Any] = {"persist": persist, "backgrounds": backgrounds}
        if samples == 1:
            run = StoredRowsRun(*arguments, **stores)
        else:
            run = SampledRowsRun(*arguments, samples=samples, kept=kept, **stores)
        run.cache = _run_cache(pool, occurrence_of)
    run.failure_limit = failure_limit
    return run


def has_cache(pool: ChatPool) -> bool:
    """Return whether the pool has a cache."""
    return pool._core.cache is not None


def is_cached(pool: ChatPool, request: ChatRequest, occurrence: int) -> bool:
    """Return whether the pool's cache has all answers of a row that another process is to ask for.

    Raises:
        ConfigurationError: a file of the request cannot be read.
    """
    cache = pool._core.cache
    return cache is not None and cache.has(request, pool._call_options(), occurrence, pool._defaults.samples)


def _run_cache(pool: ChatPool, occurrence_of: Optional[Callable[[Any], int]]) -> Optional[RunCache]:
    if pool._core.cache is None:
        return None
    from .run_cache import RunCache  # as in PoolCore

    return RunCache(pool._core.cache, occurrence_of)


def _in_full(request: ChatRequest) -> ChatRequest:
    """Return the same request; the embedding of a text comes in the whole answer, and not as the bare vector."""
    return request if shared_part(request) is None else join_requests([request])


def with_answer_rules(
    pool: ChatPool,
    rules: AnswerRules,
    *,
    collect_stream: bool = False,
    max_pack: Optional[int] = None,
    samples: int = 1,
) -> ChatPool:
    """Return a view of the pool whose runs over rows review answers; its copies in other processes do too.

    Args:
        pool: the pool.
        rules: what answers have to be.
        collect_stream: whether they are collected from streams.
        max_pack: how many texts to embed go out in one request at most.
        samples: how many answers each row gets.

    Raises:
        TypeError, ConfigurationError: a rule that cannot work; the message names the keyword.
    """
    rules.reviewer()
    view = pool.with_options()
    changes: Dict[str, Any] = {"collect_stream": collect_stream, "max_pack": max_pack, "samples": samples}
    view._defaults = replace(view._defaults, answers=rules, **changes)
    return view


def row_fields(method: str, keywords: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the body fields of rows that keywords of a function name: those of ``extra_body`` over the others.

    Raises:
        TypeError: a keyword that is no body field; ``method`` stands in the message.
        ConfigurationError: a value that JSON cannot hold.
    """
    params = {name: value for name, value in keywords.items() if name != "extra_body"}
    return body_fields(method, keywords.get("extra_body"), params)


def request_maker(pool: ChatPool, fields: Optional[Mapping[str, Any]] = None) -> Callable[[Any], ChatRequest]:
    """Return what fills in the pool's own in a row's request, and ``fields`` over it."""
    return _RowRequestMaker(pool._defaults, None, fields or {})


class _RowRequestMaker(RequestMaker):
    """Makes the requests of rows; of rows about sounds too, where other runs send what their caller has made."""

    def __call__(self, item: Any) -> ChatRequest:
        if not (isinstance(item, ChatRequest) and is_sound_request(item)):
            return super().__call__(item)
        return in_its_form(super().__call__(completed_sound(item, self._model, self._body)))


def request_facts(pool: ChatPool, fields: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what a pool fills in in requests, and the body fields of a run, as JSON has them.

    Raises:
        TypeError, ConfigurationError: JSON has no form for one of them.
    """
    defaults = pool._defaults
    facts = {
        "model": defaults.model,
        "system": defaults.system,
        "defaults": dict(defaults.body),
        "extra": dict(fields),
    }
    return dict(json.loads(encode(facts)))


def with_request_facts(pool: ChatPool, facts: Mapping[str, Any]) -> ChatPool:
    """Return a view of a pool that fills in what another one has filled in, by its :func:`request_facts`."""
    return pool.with_options(model=facts["model"], system=facts["system"], defaults=facts["defaults"])


def timeout_of(pool: ChatPool) -> Timeout:
    """Return the time limits of the pool's calls."""
    return pool._defaults.timeout


def with_response_limit(pool: ChatPool, max_response_bytes: int) -> ChatPool:
    """Return a pool that is made as this one, for answers up to this size; it is the caller's to close."""
    arguments = {**pool._recipe.arguments, "max_response_bytes": max_response_bytes}
    return restore(replace(pool._recipe, arguments=arguments), pool._defaults)


def recorded_options_of(pool: ChatPool, make_request: Callable[[Any], ChatRequest], **more: Any) -> Dict[str, Any]:
    """Return the options of a run over rows for its journal; arguments as for ``recorded_options``."""
    return recorded_options(pool._core, pool._call_options(), make_request, **more)


def prompt_tokens(request: ChatRequest) -> float:
    """Return the tokens that a pool expects in a request's prompt, before it has learned from answers."""
    return TokenEstimator().estimate(request_size(request)).prompt


def max_workers_of(pool: ChatPool) -> int:
    """Return how many calls the pool makes at a time."""
    return pool._core.engine.max_workers


def limits_of(pool: ChatPool) -> List[Limits]:
    """Return the limits of a pool and of its endpoints, as far as they limit anything."""
    return [limits for limits in limits_in(pool._recipe.arguments) if limits.any]


def model_of(pool: ChatPool) -> Optional[str]:
    """Return the model of requests that name none, None without one."""
    return pool._defaults.model or pool._defaults.body.get("model")


def has_version_in_url(pool: ChatPool) -> bool:
    """Return whether the base URL has a path, which then stands for the ``/v1`` of a request."""
    return any(url.path.strip("/") for url in base_urls(pool))


def needs_model(pool: ChatPool) -> bool:
    """Return whether a server is OpenAI's own, which refuses requests without a model."""
    hosts: Set[Optional[str]] = {url.hostname for url in base_urls(pool)}
    return urlsplit(PUBLIC_URL).hostname in hosts


def base_urls(pool: ChatPool) -> List[SplitResult]:
    """Return the base URL of each endpoint of the pool."""
    return [urlsplit(transport.base_url) for transport in pool._core.engine.endpoints.transports]


class _RowReservation(NamedTuple):
    budget: BudgetReservation
    size: RequestSize
    estimator: TokenEstimator


class RowBudget:
    """The budget of a pool, for rows whose calls other processes make.

    As in the pool itself, what is under way counts as it is expected to end; a row that is handed over is under way.

    Args:
        pool: whose budget; without one everything is admitted.

    Attributes:
        limits: whether there is a budget.
    """

    def __init__(self, pool: ChatPool) -> None:
        self._engine = pool._core.engine
        self._samples = pool._defaults.samples
        self.limits = self._engine.has_budget
        self._prices = pool._core.prices
        self._estimators: Dict[Optional[str], TokenEstimator] = {}
        self._reserved: Dict[int, _RowReservation] = {}

    def reserve(self, key: int, request: ChatRequest) -> bool:
        """Reserve what a row is expected to take; False if that has to wait for others to end.

        Raises:
            BudgetExceededError: it does not fit any more.
            ConfigurationError: the budget has no price for its model.
        """
        if not self.limits:
            return True
        size = request_size(request)
        size = size._replace(choices=size.choices * self._samples)
        estimator = self._estimators.setdefault(request.model, TokenEstimator())
        reservation = self._engine.reserve_budget(request.model, estimator.expected(size))
        if reservation is None:
            return False
        self._reserved[key] = _RowReservation(reservation, size, estimator)
        return True

    def settle(self, record: Record, usage: Optional[Usage]) -> None:
        """Book what a row took that has ended."""
        reserved = self._reserved.pop(record.key, None)
        if reserved is None:
            return
        if usage is not None and record.charges:
            usage = replace(usage, cost=self._cost_of(record))
        elif usage is not None:
            reserved.estimator.learn(reserved.size, usage)
        timeouts = sum(attempt.reason == TIMED_OUT for attempt in record.attempts)
        self._engine.book_budget(reserved.budget, usage, answered=record.state == OK, timeouts=timeouts)

    def _cost_of(self, record: Record) -> Optional[float]:
        """Return what the requests of a row have cost together, each by its model and tier; None without prices."""
        bill = Bill(self._prices)
        bill.add_all(record.charges)
        return bill.cost

    def release(self, key: int) -> None:
        """Give back what was reserved for a row that was not sent."""
        reserved = self._reserved.pop(key, None)
        if reserved is not None:
            self._engine.book_budget(reserved.budget, None, answered=False)


class WorkerPools:
    """Pickles of a pool, one for each child process.

    Its workers are shared out among them, and its limits hold for all of them together: through a file that is gone
    when this is closed.  Its budget stays behind, for the parent to ask.  The bytes hold the key: they are for the
    pipe to a child, and for nothing else.

    Args:
        pool: the pool.
        count: how many processes there are.

    Raises:
        ConfigurationError: it holds something that cannot be sent to another process.
    """

    def __init__(self, pool: ChatPool, count: int) -> None:
        self._scope: Optional[PrivateScope] = None
        arguments = {**pool._recipe.arguments, "budget": None}
        arguments["limits"] = self._child_limits(arguments.get("limits"), count)
        arguments = change_endpoints(
            arguments, lambda endpoint: endpoint._for_child(self._child_limits(endpoint.limits, count))
        )
        if arguments.get("auth") is not None:
            arguments["auth"] = arguments["auth"].for_child()
        workers = max_workers_of(pool)
        shares = [max(1, workers // count + (place < workers % count)) for place in range(count)]
        recipes = [replace(pool._recipe, arguments={**arguments, "max_workers": share}) for share in shares]
        try:
            self._pickles: List[bytes] = [pickle.dumps((recipe, pool._defaults)) for recipe in recipes]
        except Exception as error:
            self.close()
            raise ConfigurationError(
                f"several processes need a pool that can be sent to them, and this one cannot: {error}; "
                "leave out processes"
            ) from error

    def _child_limits(self, limits: Optional[Limits], count: int) -> Optional[Limits]:
        """Return the limits of each process: the same in a scope that they share, or else its part of them."""
        if limits is None or limits.scope is not None:
            return limits
        if not limits.any:
            return limits
        self._scope = self._scope or PrivateScope()
        if self._scope.name is not None:
            return limits.in_parts(1, self._scope.name)
        return limits.in_parts(count, None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pickles)

    def close(self) -> None:
        """Remove what the processes shared."""
        if self._scope is not None:
            self._scope.close()


def pickled_arguments(arguments: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the arguments of a pool as they may be pickled, for processes elsewhere.

    Raises:
        ConfigurationError: there is a secret among them; that includes the URL of a Redis with a password.
        TypeError: one is of a wrong type.
    """
    recipe = PoolRecipe("", {**arguments, "auth": request_auth(arguments.get("auth"))})
    return dict(recipe.without_key().arguments)


def unpickle_pool(data: bytes) -> ChatPool:
    """Make a pool again from one of the bytes of :class:`WorkerPools`."""
    return restore(*pickle.loads(data))  # noqa: S301 - from this run's own parent process, through its pipe
