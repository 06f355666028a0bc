"""What batch files are run by.

The budget of a run whose calls are made by other processes.

Copies of a pool for other processes of the same run.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional
from urllib.parse import urlsplit

from .._engine import TIMED_OUT
from .._journal import OK, Record
from .._policy.budget import BudgetReservation, TokenEstimator
from .._quota import PrivateScope
from .._structured.validation import AnswerRules
from .._values import RequestSize
from .._wire.embeddings import join_requests, shared_part
from .._wire.request_size import request_size
from ..config import Limits
from ..errors import ConfigurationError
from ..types import ChatRequest, Outcome, Usage
from .connect import PUBLIC_URL
from .embedding_batches import EmbeddingRowsRun
from .failure_limit import FailureLimit
from .options import RequestMaker, body_fields
from .pickling import restore
from .pool import ChatPool
from .stored_runs import StoredRowsRun

__all__ = [
    "RowBudget",
    "WorkerPools",
    "has_version_in_url",
    "model_of",
    "needs_model",
    "prompt_tokens",
    "request_maker",
    "start_rows",
    "unpickle_pool",
    "with_answer_rules",
]


def start_rows(
    pool: ChatPool,
    rows: Iterable[Any],
    prepare: Callable[[Any], ChatRequest],
    keep: Callable[[Outcome[Any]], None],
    *,
    packed: bool = False,
    failure_limit: Optional[FailureLimit] = None,
    ends_when_refused: bool = True,
) -> StoredRowsRun:
    """A run over rows that somebody else keeps the outcomes of.

    Args:
        pool: makes the calls.
        rows: the input.
        prepare: makes the whole request of one.
        keep: keeps the outcome of one; called in workers.
        packed: whether requests for embeddings are joined.
        failure_limit: ends the run when so many rows have failed; None where somebody else counts.
        ends_when_refused: as in :class:`~chatpool._engine.CallOptions`.
    """
    core = pool._core
    options = pool._how().of_run(core.dispatcher, None, ends_when_refused=ends_when_refused)
    if packed:
        window, most = 2 * core.engine.max_workers, pool._defaults.max_pack
        run: StoredRowsRun = EmbeddingRowsRun(core.engine, rows, prepare, options, window, most, keep=keep)
    else:
        window = max(1000, 10 * core.engine.max_workers)
        run = StoredRowsRun(core.engine, rows, lambda row: _in_full(prepare(row)), options, window, keep=keep)
    run.failure_limit = failure_limit
    return run


def _in_full(request: ChatRequest) -> ChatRequest:
    """The same request, so that a text's embedding comes in the whole answer and not as the bare vector."""
    return request if shared_part(request) is None else join_requests([request])


def with_answer_rules(
    pool: ChatPool, rules: AnswerRules, *, collect_stream: bool = False, max_pack: Optional[int] = None
) -> ChatPool:
    """A view of the pool whose runs over rows look at answers; its copies in other processes do too.

    Args:
        pool: the pool.
        rules: what answers have to be.
        collect_stream: whether they are collected from streams.
        max_pack: how many texts to embed go out in one request at most.

    Raises:
        TypeError, ConfigurationError: a rule that cannot work; the message names the keyword.
    """
    rules.reviewer()
    view = pool.with_options()
    view._defaults = replace(view._defaults, answers=rules, collect_stream=collect_stream, max_pack=max_pack)
    return view


def request_maker(pool: ChatPool, extra: Optional[Mapping[str, Any]] = None) -> Callable[[Any], ChatRequest]:
    """Fills in what a row's request lacks.

    Raises:
        TypeError: a keyword among ``extra`` that is no body field.
    """
    return RequestMaker(pool._defaults, None, body_fields("run", None, extra or {}))


def prompt_tokens(request: ChatRequest) -> float:
    """The tokens that a pool expects a request's prompt to have, before any answer has taught it better."""
    return TokenEstimator().estimate(request_size(request)).prompt


def model_of(pool: ChatPool) -> Optional[str]:
    """The model of requests that name none, None without one."""
    return pool._defaults.model or pool._defaults.body.get("model")


def has_version_in_url(pool: ChatPool) -> bool:
    """Whether the base URL has a path, of which a request's ``/v1`` is a part."""
    return any(urlsplit(each.base_url).path.strip("/") for each in pool._core.engine.endpoints.transports)


def needs_model(pool: ChatPool) -> bool:
    """Whether a server is OpenAI's own, which refuses requests without a model."""
    hosts = {urlsplit(each.base_url).hostname for each in pool._core.engine.endpoints.transports}
    return urlsplit(PUBLIC_URL).hostname in hosts


class _Reserved(NamedTuple):
    amount: BudgetReservation
    size: RequestSize
    estimator: TokenEstimator


class RowBudget:
    """Asks a pool's budget before a row is handed to another process, and tells it what the row took.

    As in the pool itself, what is under way counts as it is expected to end; a row that is handed over is under way.

    Args:
        pool: whose budget; without one everything is admitted.

    Attributes:
        limits: whether there is a budget.
    """

    def __init__(self, pool: ChatPool) -> None:
        engine = pool._core.engine
        self._spending = engine._budget_tracker
        self.limits = self._spending is not None
        self._lock = engine._scheduler.lock
        self._estimators: Dict[Optional[str], TokenEstimator] = {}
        self._reserved: Dict[int, _Reserved] = {}

    def reserve(self, key: int, request: ChatRequest) -> bool:
        """Reserve what a row is expected to take; False if that has to wait for others to end.

        Raises:
            BudgetExceededError: it does not fit any more.
            ConfigurationError: the budget has no price for its model.
        """
        if self._spending is None:
            return True
        size = request_size(request)
        estimator = self._estimators.setdefault(request.model, TokenEstimator())
        expected = estimator.expected(size)
        with self._lock:
            if self._spending.would_exceed(request.model, expected):
                return False
            refusal = self._spending.rejection(request.model, expected)
            if refusal is not None:
                raise refusal
            amount = self._spending.reservation(request.model, expected)
            self._spending.sent(amount)
        self._reserved[key] = _Reserved(amount, size, estimator)
        return True

    def settle(self, record: Record, usage: Optional[Usage]) -> None:
        """The row has ended: book what it took."""
        reserved = self._reserved.pop(record.key, None)
        if reserved is None or self._spending is None:
            return
        if usage is not None:
            reserved.estimator.learn(reserved.size, usage)
        answered = record.state == OK
        timeouts = sum(attempt.reason == TIMED_OUT for attempt in record.attempts)
        with self._lock:
            # An answer that did not come in time may have been written, and billed, all the same.
            for _ in range(timeouts):
                self._spending.sent(reserved.amount)
                self._spending.returned(reserved.amount, None, answered=True)
            self._spending.returned(reserved.amount, usage, answered=answered, wrote=answered)

    def release(self, key: int) -> None:
        """The row was not sent."""
        reserved = self._reserved.pop(key, None)
        if reserved is not None and self._spending is not None:
            with self._lock:
                self._spending.returned(reserved.amount, None, answered=False)


class WorkerPools:
    """A pool several times over, to be made again in child processes.

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
        arguments = {**pool._origin.arguments, "budget": None}
        arguments["limits"] = self._shared(arguments.get("limits"), count)
        if arguments.get("endpoints") is not None:
            arguments["endpoints"] = [
                endpoint._for_child(self._shared(endpoint.limits, count)) for endpoint in arguments["endpoints"]
            ]
        workers = pool._core.engine.max_workers
        shares = [max(1, workers // count + (place < workers % count)) for place in range(count)]
        origins = [replace(pool._origin, arguments={**arguments, "max_workers": share}) for share in shares]
        try:
            self._packed: List[bytes] = [pickle.dumps((origin, pool._defaults)) for origin in origins]
        except Exception as error:
            self.close()
            raise ConfigurationError(
                f"several processes need a pool that can be sent to them, and this one cannot: {error}; "
                "leave out processes"
            ) from error

    def _shared(self, limits: Optional[Limits], count: int) -> Optional[Limits]:
        """The limits as each of the processes gets them."""
        if limits is None or limits.scope is not None:
            return limits
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            return limits
        self._scope = self._scope or PrivateScope()
        if self._scope.name is not None:
            return _changed(limits, 1, self._scope.name)
        return _changed(limits, count, None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._packed)

    def close(self) -> None:
        """Remove what the processes shared."""
        if self._scope is not None:
            self._scope.close()


def _changed(limits: Limits, parts: int, scope: Optional[str]) -> Limits:
    """One of ``parts`` equal shares of the limits, in this scope."""

    def share(limit: Optional[float]) -> Any:
        return None if limit is None else max(1, limit / parts)

    return Limits(
        requests_per_minute=share(limits.requests_per_minute),
        tokens_per_minute=share(limits.tokens_per_minute),
        burst=limits.burst,
        scope=scope,
    )


def unpickle_pool(data: bytes) -> ChatPool:
    """The pool again."""
    return restore(*pickle.loads(data))  # noqa: S301 - from this run's own parent process, through its pipe
