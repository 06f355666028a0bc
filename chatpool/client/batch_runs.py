"""What batch files are run by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Iterable, Mapping, Optional
from urllib.parse import urlsplit

from ..policy.tokens import TokenEstimator
from ..types import ChatRequest, Outcome
from ..wire.sizes import request_size
from ..wire.vectors import joined, shared_part
from .base import PoolBase
from .connect import PUBLIC_URL
from .failure_limit import FailureLimit
from .options import RequestMaker, body_fields
from .packed import PackedRowsRun
from .pool import ChatPool
from .review import AnswerRules
from .rows import RowsRun

__all__ = [
    "has_version_in_url",
    "model_of",
    "needs_model",
    "prompt_tokens",
    "request_maker",
    "start_rows",
    "with_answer_rules",
]


def start_rows(
    pool: PoolBase,
    rows: Iterable[Any],
    prepare: Callable[[Any], ChatRequest],
    keep: Callable[[Outcome[Any]], None],
    *,
    packed: bool = False,
    failure_limit: Optional[FailureLimit] = None,
    ends_when_refused: bool = True,
) -> RowsRun:
    """A run over rows that somebody else keeps the outcomes of.

    Args:
        pool: makes the calls.
        rows: the input.
        prepare: makes the whole request of one.
        keep: keeps the outcome of one; called in workers.
        packed: whether requests for embeddings are joined.
        failure_limit: ends the run when so many rows have failed; None where somebody else counts.
        ends_when_refused: as in :class:`~chatpool.engine.CallOptions`.
    """
    core = pool._core
    options = pool._how().of_run(core.dispatcher, None, ends_when_refused=ends_when_refused)
    if packed:
        window, most = 2 * core.engine.max_workers, pool._defaults.max_pack
        run: RowsRun = PackedRowsRun(core.engine, rows, prepare, options, window, most, keep=keep)
    else:
        window = max(1000, 10 * core.engine.max_workers)
        run = RowsRun(core.engine, rows, lambda row: _in_full(prepare(row)), options, window, keep=keep)
    run.failure_limit = failure_limit
    return run


def _in_full(request: ChatRequest) -> ChatRequest:
    """The same request, so that a text's embedding comes in the whole answer and not as the bare vector."""
    return request if shared_part(request) is None else joined([request])


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


def request_maker(pool: PoolBase, extra: Optional[Mapping[str, Any]] = None) -> Callable[[Any], ChatRequest]:
    """Fills in what a row's request lacks.

    Raises:
        TypeError: a keyword among ``extra`` that is no body field.
    """
    return RequestMaker(pool._defaults, None, body_fields("run", None, extra or {}))


def prompt_tokens(request: ChatRequest) -> float:
    """The tokens that a pool expects a request's prompt to have, before any answer has taught it better."""
    return TokenEstimator().estimate(request_size(request)).prompt


def model_of(pool: PoolBase) -> Optional[str]:
    """The model of requests that name none, None without one."""
    return pool._defaults.model or pool._defaults.body.get("model")


def has_version_in_url(pool: PoolBase) -> bool:
    """Whether the base URL has a path, of which a request's ``/v1`` is a part."""
    return any(urlsplit(each.base_url).path.strip("/") for each in pool._core.engine.routes.transports)


def needs_model(pool: PoolBase) -> bool:
    """Whether a server is OpenAI's own, which refuses requests without a model."""
    hosts = {urlsplit(each.base_url).hostname for each in pool._core.engine.routes.transports}
    return urlsplit(PUBLIC_URL).hostname in hosts
