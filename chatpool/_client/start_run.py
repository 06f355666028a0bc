"""From a method call with many items to a run: its keywords are checked, and the run is made, but not started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Literal, NamedTuple, Optional, Union, get_args

from .._engine import CallOptions
from .._observe import RunProgress, run_progress
from .._observe.progress import Progress
from .._reentrancy import runs_user_code
from .._wire import EMPTY_CELL, is_missing, table_advice
from ..config import choice, positive_int, positive_seconds
from ..types import ChatRequest
from .core import PoolCore
from .failures import FailureLimit, MaxFailures
from .options import RequestMaker, recorded_options, run_call_options, streamed_options
from .run import Run
from .single_flight import SingleFlight
from .streams import StreamRun, Streams

if TYPE_CHECKING:
    from .run_cache import RunCache

__all__ = [
    "ItemKey",
    "JournalPath",
    "OnError",
    "RunOptions",
    "run_window",
    "start_embedding_run",
    "start_run",
    "start_streams",
]

JournalPath = Union[str, os.PathLike[str]]
ItemKey = Callable[[Any], Union[str, int]]

OnError = Literal["none", "return", "raise"]

_LEAST_WINDOW_ITEMS = 1000
_WINDOW_ITEMS_PER_WORKER = 10


def run_window(max_workers: int) -> int:
    """Return how many items are read ahead of those consumed, unless the caller says so."""
    return max(_LEAST_WINDOW_ITEMS, _WINDOW_ITEMS_PER_WORKER * max_workers)


@dataclass(frozen=True)
class RunOptions:
    """Checked keywords of a run; a retry of failed items sets ``is_retry``, and ``occurrences`` where they are known.

    Raises:
        TypeError, ConfigurationError: a keyword cannot work; the message names it.
    """

    prompt: Optional[Callable[[Any], Any]] = None
    progress: Progress = None
    on_error: OnError = "return"
    run_timeout: Optional[float] = None
    buffersize: Optional[int] = None
    journal: Optional[JournalPath] = None
    dedupe: bool = False
    max_pack: Optional[int] = None
    max_failures: MaxFailures = "same"
    heartbeat: Optional[float] = None
    key: Optional[ItemKey] = None
    samples: int = 1
    is_retry: bool = False
    occurrences: Optional[Mapping[int, int]] = None

    def __post_init__(self) -> None:
        if self.prompt is not None and not callable(self.prompt):
            raise TypeError(
                f"prompt must be a function that makes an item of a row, got {type(self.prompt).__name__}; "
                "the prompts themselves are the first argument"
            )
        choice("on_error", self.on_error, get_args(OnError))
        if self.run_timeout is not None:
            positive_seconds("run_timeout", self.run_timeout)
        if self.heartbeat is not None:
            positive_seconds("heartbeat", self.heartbeat)
        if self.buffersize is not None:
            positive_int("buffersize", self.buffersize)
        positive_int("samples", self.samples)
        if self.max_pack is not None:
            positive_int("max_pack", self.max_pack)
        if self.journal is not None and not isinstance(self.journal, (str, os.PathLike)):
            raise TypeError(f"journal must be the path of a file, got {type(self.journal).__name__}")
        if self.key is not None and not callable(self.key):
            raise TypeError(f"key must be a function of an item that returns a str or an int, got {self.key!r}")
        if self.key is not None and self.journal is None:
            raise TypeError("key= says how journal= knows an item: pass journal= as well")
        if not isinstance(self.dedupe, bool):
            raise TypeError(f"dedupe must be True or False, got {self.dedupe!r}")
        FailureLimit(self.max_failures)

    def window(self, max_workers: int) -> int:
        """Return how many items may be read ahead."""
        return self.buffersize or run_window(max_workers)


class _Parts(NamedTuple):
    """Parts that runs of all kinds are made of, besides their items.

    Attributes:
        prepare: makes the request of an item.
        call_options: of the calls.
        failure_limit: ends the run when too many items fail.
        progress: of the run, None where nothing is shown.
    """

    prepare: Callable[[Any], ChatRequest]
    call_options: CallOptions
    failure_limit: FailureLimit
    progress: Optional[RunProgress]


def start_run(
    core: PoolCore,
    items: Iterable[Any],
    make_request: Callable[[Any], ChatRequest],
    run_options: RunOptions,
    call_options: CallOptions,
) -> Run:
    """Return a run over ``items``.  Nothing is sent before it is consumed.

    Raises:
        TypeError: ``items`` is a single item instead of many.
    """
    parts = _parts(core, items, make_request, run_options, call_options)
    arguments = core.engine, items, parts.prepare, parts.call_options, run_options.window(core.engine.max_workers)
    more: Dict[str, Any] = {}
    if run_options.journal is not None:
        recorded = recorded_options(core, call_options, make_request, run_timeout=run_options.run_timeout)
        more.update(journal=run_options.journal, recorded=recorded, item_key=run_options.key)
    if run_options.samples > 1:
        _refuse_choices(make_request)
        more["samples"] = run_options.samples
    run: Run = _kind_of(run_options)(*arguments, **more)
    run.single_flight = SingleFlight() if run_options.dedupe else None
    run.cache = _run_cache(core, run_options)
    run.failure_limit, run.progress = parts.failure_limit, parts.progress
    return run


def _kind_of(run_options: RunOptions) -> Callable[..., Run]:
    """Return the class of a run; most programs need none of those that are imported here, which takes time."""
    is_retry, has_journal = run_options.is_retry, run_options.journal is not None
    if run_options.samples > 1:
        from . import samples

        if has_journal:
            return samples.JournalledSampledRetry if is_retry else samples.JournalledSampledRun
        return samples.SampledRetry if is_retry else samples.SampledRun
    if not has_journal:
        return Run
    from .stored_runs import JournalledRetry, JournalledRun

    return JournalledRetry if is_retry else JournalledRun


def _refuse_choices(make_request: Callable[[Any], ChatRequest]) -> None:
    """Refuse ``n`` beside ``samples``, once and not for every item."""
    fields = make_request.options["parameters"] if isinstance(make_request, RequestMaker) else {}
    if fields.get("n") not in (None, 1):
        raise TypeError("samples= says how many answers each item gets: leave out n=")


def start_embedding_run(
    core: PoolCore,
    items: Iterable[Any],
    make_request: Callable[[Any], ChatRequest],
    run_options: RunOptions,
    call_options: CallOptions,
) -> Run:
    """As :func:`start_run`, for texts to embed, many of which go out in one request.

    Raises:
        TypeError: ``items`` is a single item instead of many.
    """
    from .embedding_batches import EmbeddingRun  # most programs embed nothing

    parts = _parts(core, items, make_request, run_options, call_options)
    window_batches = 2 * core.engine.max_workers
    run = EmbeddingRun(core.engine, items, parts.prepare, parts.call_options, window_batches, run_options.max_pack)
    run.use_cache(_run_cache(core, run_options))
    run.failure_limit, run.progress = parts.failure_limit, parts.progress
    return run


def start_streams(
    core: PoolCore,
    items: Iterable[Any],
    make_request: Callable[[Any], ChatRequest],
    run_options: RunOptions,
    call_options: CallOptions,
) -> Streams:
    """Return an iterator over a run of streams.  Nothing is sent before the first chunk is asked for.

    Raises:
        TypeError: ``items`` is a single item instead of many.
    """
    if core.cache is not None:
        core.cache.refuse_stream()
    parts = _parts(core, items, make_request, run_options, streamed_options(call_options, core.engine.streams.forward))
    window = run_options.window(core.engine.max_workers)
    run = StreamRun(core.engine, items, parts.prepare, parts.call_options, window)
    run.failure_limit, run.progress = parts.failure_limit, parts.progress
    run.patience_seconds = run_options.heartbeat
    return Streams(run)


def _run_cache(core: PoolCore, run_options: RunOptions) -> Optional[RunCache]:
    """Return the cache of a run, None without one."""
    if core.cache is None:
        return None
    from .run_cache import RunCache  # as in PoolCore

    occurrences = run_options.occurrences
    if not run_options.is_retry:
        return RunCache(core.cache)
    # An item of a retry is the outcome of an item, which keeps its number.
    return RunCache(core.cache, lambda first: None if occurrences is None else occurrences.get(first.index, 0))


def _parts(
    core: PoolCore,
    items: Iterable[Any],
    make_request: Callable[[Any], ChatRequest],
    run_options: RunOptions,
    call_options: CallOptions,
) -> _Parts:
    _check_items(items, run_options)
    prompt = run_options.prompt
    prepare = _Prepare(make_request) if prompt is None else _PrepareWithPrompt(make_request, prompt)
    total = len(items) if isinstance(items, Sized) else None
    progress = run_progress(run_options.progress, total, prices=core.prices)
    dispatcher = core.dispatcher if progress is None else core.dispatcher.extended([progress])
    deadline = None if run_options.run_timeout is None else core.engine.clock.now() + run_options.run_timeout
    limit = FailureLimit(run_options.max_failures)
    options = run_call_options(call_options, dispatcher, deadline, ends_when_refused=limit.is_default)
    return _Parts(prepare, options, limit, progress)


class _Prepare:
    """Make the request of an item; an empty cell of a table is refused."""

    def __init__(self, make_request: Callable[[Any], ChatRequest]) -> None:
        self._make_request = make_request

    def __call__(self, item: Any) -> ChatRequest:
        if item is not None and is_missing(item):
            raise ValueError(f"{EMPTY_CELL}: {item!r} is no prompt; fill it, or leave the row out")
        return self._make_request(item)


class _PrepareWithPrompt(_Prepare):
    """Make the request of the item that ``prompt`` makes of a row."""

    def __init__(self, make_request: Callable[[Any], ChatRequest], prompt: Callable[[Any], Any]) -> None:
        super().__init__(make_request)
        self._prompt = prompt

    @runs_user_code
    def __call__(self, row: Any) -> ChatRequest:
        if is_missing(row):  # or its "nan" would be a part of the prompt
            raise ValueError(f"{EMPTY_CELL}: the row is {row!r}; fill it, or leave it out")
        try:
            item = self._prompt(row)
        except Exception as error:
            raise ValueError(f"prompt= raised {type(error).__name__}: {error}") from error
        return super().__call__(item)


def _check_items(items: Any, options: RunOptions) -> None:
    """Refuse a single item, or the columns of a table, in place of many items."""
    if isinstance(items, (str, bytes)):
        kind = type(items).__name__
        raise TypeError(f"items must be an iterable of items, got a {kind}; for one prompt pass [prompt]")
    if isinstance(items, Mapping):
        raise TypeError("items must be an iterable of items, got a dict; for one request pass [request]")
    if options.prompt is None and isinstance(items, (list, tuple)) and items and _is_message(items[0]):
        raise TypeError(
            "items must be an iterable of items, got the messages of one conversation; "
            "put them into a list of their own: [messages]"
        )
    advice = table_advice(items)
    if advice is not None:
        kind = type(items).__name__
        raise TypeError(f"items must be an iterable of items, got a {kind}, which gives its columns: {advice}")
    if not hasattr(items, "__iter__") and not hasattr(items, "__getitem__"):
        raise TypeError(f"items must be an iterable of items, got {type(items).__name__}")


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and "role" in item
