"""Progress of runs: a tqdm bar over the events of a run, and the progress of a batch run.

A batch run takes hours: it has a bar on a terminal, and a line a minute in the log elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Union

from .._locks import new_lock
from ..clock import Clock, current_clock
from ..events import Event
from ..prices import Bill, PricesLike, dollars, prices_of
from ..types import Usage

__all__ = ["Progress", "ProgressBar", "RowProgress", "progress_bar"]

logger = logging.getLogger("chatpool")

_LINE_SECONDS = 60.0  # between two lines of the log

Progress = Union[bool, Mapping[str, Any], None]


class _TerminalBar:
    """A tqdm bar that is hidden while the log is written, so that lines of the log stand above it.

    Any thread may use it.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._lock = new_lock()  # tqdm's own counter is not safe against concurrent updates
        self._lines_in_progress = 0
        self._filter = _HidingFilter(self)
        logger.addFilter(self._filter)

    def update(self, count: int, postfix: Mapping[str, Any]) -> None:
        """Move the bar by ``count`` items; a ``postfix`` that is not empty replaces the one behind it."""
        with self._lock:
            if postfix:
                self._bar.set_postfix(postfix, refresh=False)
            if self._lines_in_progress:
                self._bar.n += count  # drawn after these lines
            else:
                self._bar.update(count)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar within the block."""
        with self._lock:
            self._lines_in_progress += 1
            self._bar.clear()
        # Without this lock and tqdm's: a handler of the log may wait for a thread that waits for one of them.
        try:
            yield
        finally:
            with self._lock:
                self._lines_in_progress -= 1
                if not self._lines_in_progress:
                    self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        logger.removeFilter(self._filter)
        with self._lock:
            self._bar.close()


class _HidingFilter(logging.Filter):
    """Calls the handlers of the log itself, while the bar is hidden."""

    def __init__(self, bar: _TerminalBar) -> None:
        super().__init__()
        self._bar = weakref.ref(bar)

    def filter(self, record: logging.LogRecord) -> bool:
        bar = self._bar()
        if bar is None:  # it was dropped without being closed
            logger.removeFilter(self)
            return True
        with bar.hidden():
            logger.callHandlers(record)
        return False


class ProgressBar:
    """Moves a tqdm bar by one per item that has ended; failures and retries stand behind it."""

    kinds = frozenset({"retrying", "reasking", "succeeded", "failed"})

    def __init__(self, make_bar: Callable[[], Any]) -> None:
        self._make_bar = make_bar
        self._bar: Optional[_TerminalBar] = None
        self._lock = new_lock()
        self._failed = 0
        self._retried = self._reasked = 0

    def open(self) -> None:
        """Show the bar, unless it is shown."""
        if self._bar is None:
            with self._lock:
                self._bar = _TerminalBar(self._make_bar())

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
        counts = {"failed": self._failed, "retries": self._retried, "reasks": self._reasked}
        return {name: count for name, count in counts.items() if count}

    def close(self) -> None:
        """Leave the bar as it stands."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()


def progress_bar(progress: Progress, total: Optional[int]) -> Optional[ProgressBar]:
    """Return the bar for a run, None without one.

    Args:
        progress: None for a bar on a terminal or in a notebook, True or False for always or never, a mapping of
            tqdm's options for a bar made with them.
        total: how many items there are, None if that is not known.

    Raises:
        TypeError: ``progress`` is something else.
    """
    if progress is None:
        options: Mapping[str, Any] = {"disable": not _is_interactive()}
    elif isinstance(progress, bool):
        options = {"disable": not progress}
    elif isinstance(progress, Mapping):
        options = progress
    else:
        raise TypeError(f"progress must be None, True, False or a dict of tqdm options, got {progress!r}")
    if options.get("disable"):
        return None

    def make_bar() -> Any:
        from tqdm.auto import tqdm  # here: its import looks for a notebook, which takes time

        return tqdm(**{"total": total, "unit": "call", **options})

    return ProgressBar(make_bar)


def _is_interactive() -> bool:
    """Return True in a notebook, and if stderr is a terminal."""
    if "ipykernel" in sys.modules:
        return True
    isatty = getattr(sys.stderr, "isatty", None)
    return bool(isatty and isatty())


class RowProgress:
    """Shows the progress of a batch run: rows, rate, failures, cost so far, time left.

    Args:
        progress: None for a bar on a terminal and lines elsewhere, False for nothing, True for a bar, or a mapping
            of tqdm's options.
        total: how many rows there are, None if that is not known.
        done: how many had ended before.
        prices: for the cost; without them it is shown only if the servers state it.
        bill: tokens and costs that the caller counts. Default: :meth:`add` counts them.
        say: takes the lines. Default: the log, at level INFO.

    It is for one thread.
    """

    def __init__(
        self,
        progress: Progress,
        total: Optional[int],
        done: int = 0,
        *,
        prices: Optional[PricesLike] = None,
        bill: Optional[Bill] = None,
        say: Optional[Callable[[str], None]] = None,
    ) -> None:
        self._total = total
        self._before = self._done = done
        self._failed = 0
        self._bill = bill or Bill(None if prices is None else prices_of(prices))
        self._say = say or logger.info
        self._clock: Clock = current_clock()
        self._started = self._line_at = self._clock.now()
        shown = _is_interactive() if progress is None else progress
        options: Optional[Mapping[str, Any]] = shown if isinstance(shown, Mapping) else {} if shown else None
        self._bar = None if options is None else _row_bar({"total": total, "initial": done, **options})
        self._logs = progress is None and self._bar is None

    def skip(self, count: int) -> None:
        """Count rows that had ended before."""
        self._before += count
        self._move(count)

    def add(self, succeeded: int, failed: int = 0, usage: Optional[Usage] = None) -> None:
        """Count rows that have ended now, and their tokens."""
        self._failed += failed
        self._bill.add(usage)
        self._move(succeeded + failed)

    def _move(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count, self._postfix())
        elif self._logs and self._clock.now() - self._line_at >= _LINE_SECONDS:
            self._line_at = self._clock.now()
            self._say(self.line())

    def _postfix(self) -> Dict[str, str]:
        postfix = {"failed": f"{self._failed:,}"} if self._failed else {}
        if self._bill.cost is not None:
            postfix["cost"] = dollars(self._bill.cost)
        return postfix

    def line(self) -> str:
        """Return the state in one line."""
        elapsed = max(self._clock.now() - self._started, 1e-9)
        rate = (self._done - self._before) / elapsed
        of_total = "" if self._total is None else f" of {self._total:,}"
        parts = [f"{self._done:,}{of_total} rows", f"{rate:,.1f} rows/s"]
        parts += [f"{value} {name}" if name == "failed" else value for name, value in self._postfix().items()]
        if self._total is not None and rate > 0:
            parts.append(f"about {_duration((self._total - self._done) / rate)} left")
        return ", ".join(parts)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _row_bar(options: Dict[str, Any]) -> Optional[_TerminalBar]:
    if options.get("disable"):
        return None
    from tqdm.auto import tqdm  # here: its import looks for a notebook, which takes time

    return _TerminalBar(tqdm(**{"unit": "row", **options}))


def _duration(seconds: float) -> str:
    """Return a time for a person: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
