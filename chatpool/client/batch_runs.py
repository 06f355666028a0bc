"""What batch files are run by."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Optional
from urllib.parse import urlsplit

from ..types import ChatRequest, Outcome
from .base import PoolBase
from .connect import PUBLIC_URL
from .options import RequestMaker, body_fields
from .packed import PackedRowsRun
from .rows import RowsRun

__all__ = ["has_version_in_url", "needs_model", "request_maker", "start_rows"]


def start_rows(
    pool: PoolBase,
    rows: Iterable[Any],
    prepare: Callable[[Any], ChatRequest],
    keep: Callable[[Outcome[Any]], None],
    *,
    packed: bool = False,
) -> RowsRun:
    """A run over rows that somebody else keeps the outcomes of.

    Args:
        pool: makes the calls.
        rows: the input.
        prepare: makes the whole request of one.
        keep: keeps the outcome of one; called in workers.
        packed: whether requests for embeddings are joined.
    """
    core = pool._core
    options = pool._how(None, None, None, None).of_run(core.dispatcher, None)
    if packed:
        return PackedRowsRun(core.engine, rows, prepare, options, 2 * core.engine.max_workers, keep=keep)
    return RowsRun(core.engine, rows, prepare, options, max(1000, 10 * core.engine.max_workers), keep=keep)


def request_maker(pool: PoolBase, extra: Optional[Mapping[str, Any]] = None) -> Callable[[Any], ChatRequest]:
    """Fills in what a row's request lacks.

    Raises:
        TypeError: a keyword among ``extra`` that is no body field.
    """
    return RequestMaker(pool._defaults, None, body_fields("run", None, extra or {}))


def has_version_in_url(pool: PoolBase) -> bool:
    """Whether the base URL has a path, of which a request's ``/v1`` is a part."""
    return bool(urlsplit(pool._core.transport.base_url).path.strip("/"))


def needs_model(pool: PoolBase) -> bool:
    """Whether the server is OpenAI's own, which refuses requests without a model."""
    return urlsplit(pool._core.transport.base_url).hostname == urlsplit(PUBLIC_URL).hostname
