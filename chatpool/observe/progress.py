"""A tqdm bar over the events of one run."""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Union

from ..events import Event
from ..locks import new_lock

__all__ = ["Progress", "ProgressBar", "TerminalBar", "progress_bar"]

logger = logging.getLogger("chatpool")

Progress = Union[bool, Mapping[str, Any], None]


class TerminalBar:
    """A tqdm bar that makes room for the lines of the log, of whatever handlers: each has a line of its own above it.

    Any thread may use it.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._lock = new_lock()  # tqdm's own counter is not safe against concurrent updates
        self._lines = 0  # that are being written
        self._filter = _MakesRoom(self)
        logger.addFilter(self._filter)

    def update(self, count: int, facts: Mapping[str, Any]) -> None:
        """So many more have ended; ``facts`` stand behind the bar, if there are any."""
        with self._lock:
            if facts:
                self._bar.set_postfix(facts, refresh=False)
            if self._lines:
                self._bar.n += count  # it is drawn after them
            else:
                self._bar.update(count)

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """Nothing is drawn within the block."""
        with self._lock:
            self._lines += 1
            self._bar.clear()
        # Without the lock, and without tqdm's: a handler may wait for whoever waits for these.
        try:
            yield
        finally:
            with self._lock:
                self._lines -= 1
                if not self._lines:
                    self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        logger.removeFilter(self._filter)
        with self._lock:
            self._bar.close()


class _MakesRoom(logging.Filter):
    """Calls the handlers itself, while the bar is gone."""

    def __init__(self, bar: TerminalBar) -> None:
        super().__init__()
        self._bar = weakref.ref(bar)

    def filter(self, record: logging.LogRecord) -> bool:
        bar = self._bar()
        if bar is None:  # it was dropped without being closed
            logger.removeFilter(self)
            return True
        with bar.room():
            logger.callHandlers(record)
        return False


class ProgressBar:
    """Moves a tqdm bar by one per finished item; failures, retries and what was asked again stand behind it."""

    kinds = frozenset({"retrying", "reasking", "succeeded", "failed"})

    def __init__(self, make_bar: Callable[[], Any]) -> None:
        self._make_bar = make_bar
        self._bar: Optional[TerminalBar] = None
        self._lock = new_lock()
        self._failed = 0
        self._retried = self._reasked = 0

    def open(self) -> None:
        """Show the bar, unless it is shown."""
        if self._bar is None:
            with self._lock:
                self._bar = TerminalBar(self._make_bar())

    def __call__(self, event: Event) -> None:
        self.open()
        with self._lock:
            if event.kind == "retrying":
                self._retried += 1
            elif event.kind == "reasking":
                self._reasked += 1
            else:
                self._failed += event.kind == "failed"
            has_ended = event.kind in ("succeeded", "failed")
            assert self._bar is not None
            self._bar.update(int(has_ended), {} if event.kind == "succeeded" else self._postfix())

    def _postfix(self) -> Dict[str, int]:
        shown = {"failed": self._failed, "retries": self._retried, "reasks": self._reasked}
        return {name: count for name, count in shown.items() if count}

    def close(self) -> None:
        """Leave the bar as it stands."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()


def progress_bar(progress: Progress, total: Optional[int]) -> Optional[ProgressBar]:
    """The bar for a run.

    Args:
        progress: None for a bar where a person looks (a terminal or a notebook), True or False for always or
            never, a mapping of tqdm's options for a bar made with them.
        total: how many items there are, None if that is not known.

    Raises:
        TypeError: ``progress`` is something else.
    """
    if progress is None:
        options: Mapping[str, Any] = {"disable": not _somebody_looks()}
    elif isinstance(progress, bool):
        options = {"disable": not progress}
    elif isinstance(progress, Mapping):
        options = progress
    else:
        raise TypeError(f"progress must be None, True, False or a dict of tqdm options, got {progress!r}")
    if options.get("disable"):
        return None

    def make_bar() -> Any:
        from tqdm.auto import tqdm  # it looks for a notebook when imported: not before somebody wants a bar

        return tqdm(**{"total": total, "unit": "call", **options})

    return ProgressBar(make_bar)


def _somebody_looks() -> bool:
    if "ipykernel" in sys.modules:
        return True
    isatty = getattr(sys.stderr, "isatty", None)
    return bool(isatty and isatty())
