"""From a method call with many items to a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, Mapping, Optional, Sized, Tuple, Union

from .._observe import ProgressBar, progress_bar
from .._observe.progress import Progress
from .._reentrancy import runs_user_code
from .._wire import EMPTY_CELL, is_missing, table_advice
from ..config import choice, positive_int, positive_seconds
from ..types import ChatRequest
from .core import PoolCore
from .failure_limit import FailureLimit, MaxFailures
from .options import CallSettings
from .run import Run
from .single_flight import SingleFlight
from .streams import StreamRun, Streams

__all__ = ["JournalPath", "RunSettings", "start_embedding_run", "start_run", "start_streams"]

JournalPath = Union[str, "os.PathLike[str]"]

_ON_ERROR = ("none", "return", "raise")


@dataclass(frozen=True)
class RunSettings:
    """The keywords of a run, checked.

    Raises:
        TypeError, ConfigurationError: a keyword cannot work; the message names it.
    """

    prompt: Optional[Callable[[Any], Any]] = None
    progress: Progress = None
    on_error: str = "return"
    run_timeout: Optional[float] = None
    buffersize: Optional[int] = None
    journal: Optional[JournalPath] = None
    dedupe: bool = False
    max_pack: Optional[int] = None
    max_failures: MaxFailures = "same"
    is_retry: bool = False

    def __post_init__(self) -> None:
        if self.prompt is not None and not callable(self.prompt):
            raise TypeError(
                f"prompt must be a function that makes an item of a row, got {type(self.prompt).__name__}; "
                "the prompts themselves are the first argument"
            )
        choice("on_error", self.on_error, _ON_ERROR)
        if self.run_timeout is not None:
            positive_seconds("run_timeout", self.run_timeout)
        if self.buffersize is not None:
            positive_int("buffersize", self.buffersize)
        if self.max_pack is not None:
            positive_int("max_pack", self.max_pack)
        if self.journal is not None and not isinstance(self.journal, (str, os.PathLike)):
            raise TypeError(f"journal must be the path of a file, got {type(self.journal).__name__}")
        if not isinstance(self.dedupe, bool):
            raise TypeError(f"dedupe must be True or False, got {self.dedupe!r}")
        FailureLimit(self.max_failures)

    def window(self, max_workers: int) -> int:
        """How many items may be read ahead."""
        return self.buffersize or max(1000, 10 * max_workers)


def start_run(
    core: PoolCore,
    items: Iterable[Any],
    make: Callable[[Any], ChatRequest],
    settings: RunSettings,
    how: CallSettings,
) -> Tuple[Run, Optional[ProgressBar]]:
    """A run over ``items``, and its progress bar if it has one.  Nothing is sent before the run is consumed.

    Raises:
        TypeError: ``items`` is a single item instead of many.
    """
    prepare, bar, deadline = _begun(core, items, make, settings)
    dispatcher = core.dispatcher if bar is None else core.dispatcher.extended([bar])
    limit = FailureLimit(settings.max_failures)
    options = how.of_run(dispatcher, deadline, ends_when_refused=limit.is_default)
    window = settings.window(core.engine.max_workers)
    if settings.journal is None:
        run = Run(core.engine, items, prepare, options, window)
    else:
        from .stored_runs import JournalledRetry, JournalledRun  # most programs keep none: importing it takes time

        kind = JournalledRetry if settings.is_retry else JournalledRun
        run = kind(core.engine, items, prepare, options, window, journal=settings.journal)
    run.single_flight = SingleFlight() if settings.dedupe else None
    run.failure_limit = limit
    return run, bar


def start_embedding_run(
    core: PoolCore,
    items: Iterable[Any],
    make: Callable[[Any], ChatRequest],
    settings: RunSettings,
    how: CallSettings,
) -> Tuple[Run, Optional[ProgressBar]]:
    """As :func:`start_run`, for texts to embed, many of which go out in one request.

    Raises:
        TypeError: ``items`` is a single item instead of many.
    """
    from .embedding_batches import EmbeddingRun  # most programs embed nothing

    prepare, bar, deadline = _begun(core, items, make, settings)
    limit = FailureLimit(settings.max_failures)
    options = how.of_run(core.dispatcher, deadline, ends_when_refused=limit.is_default)
    run = EmbeddingRun(core.engine, items, prepare, options, 2 * core.engine.max_workers, settings.max_pack)
    run.failure_limit = limit
    run.bar = bar
    return run, bar


def start_streams(
    core: PoolCore,
    items: Iterable[Any],
    make: Callable[[Any], ChatRequest],
    settings: RunSettings,
    how: CallSettings,
) -> Streams:
    """What comes of a run of streams.  Nothing is sent before the first chunk is asked for.

    Raises:
        TypeError: ``items`` is a single item instead of many.
    """
    prepare, bar, deadline = _begun(core, items, make, settings)
    dispatcher = core.dispatcher if bar is None else core.dispatcher.extended([bar])
    limit = FailureLimit(settings.max_failures)
    how = replace(how, reading=core.engine.streams.forward)
    options = how.of_run(dispatcher, deadline, ends_when_refused=limit.is_default)
    run = StreamRun(core.engine, items, prepare, options, settings.window(core.engine.max_workers))
    run.failure_limit = limit
    return Streams(run, bar)


def _begun(
    core: PoolCore, items: Iterable[Any], make: Callable[[Any], ChatRequest], settings: RunSettings
) -> Tuple[Callable[[Any], ChatRequest], Optional[ProgressBar], Optional[float]]:
    """What makes requests of the items, the bar, and when the run's time ends."""
    _check_items(items, settings)
    prepare = _Prepare(make) if settings.prompt is None else _Composed(make, settings.prompt)
    bar = progress_bar(settings.progress, len(items) if isinstance(items, Sized) else None)
    deadline = None if settings.run_timeout is None else core.engine.clock.now() + settings.run_timeout
    return prepare, bar, deadline


class _Prepare:
    """Makes a request of an item that is no empty cell of a table."""

    def __init__(self, make: Callable[[Any], ChatRequest]) -> None:
        self._make = make

    def __call__(self, item: Any) -> ChatRequest:
        if item is not None and is_missing(item):
            raise ValueError(f"{EMPTY_CELL}: {item!r} is no prompt; fill it, or leave the row out")
        return self._make(item)


class _Composed(_Prepare):
    """Makes a request of what ``prompt`` makes of a row."""

    def __init__(self, make: Callable[[Any], ChatRequest], prompt: Callable[[Any], Any]) -> None:
        super().__init__(make)
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


def _check_items(items: Any, settings: RunSettings) -> None:
    """Catch the slips in which one item, or the columns of a table, are taken for many items."""
    if isinstance(items, (str, bytes)):
        kind = type(items).__name__
        raise TypeError(f"items must be an iterable of items, got a {kind}; for one prompt pass [prompt]")
    if isinstance(items, Mapping):
        raise TypeError("items must be an iterable of items, got a dict; for one request pass [request]")
    if settings.prompt is None and isinstance(items, (list, tuple)) and items and _is_message(items[0]):
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
