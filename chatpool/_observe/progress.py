"""A tqdm bar over the events of one run.

Progress of runs that take hours: a bar on a terminal, a line a minute elsewhere.
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

__all__ = ["Progress", "ProgressBar", "RowProgress", "TerminalBar", "progress_bar"]


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


_LINE_EVERY = 60.0  # seconds


class RowProgress:
    """Shows how far a run is: rows, rate, failures, cost so far, time left.

    Args:
        progress: None for a bar on a terminal and lines elsewhere, False for nothing, True for a bar, or a mapping
            of tqdm's options.
        total: how many rows there are, None if that is not known.
        done: how many were done before.
        prices: for the cost; None shows none, unless the servers state it.
        bill: what has been counted so far, where somebody else counts; otherwise :meth:`add` does.
        say: takes the lines. Default: the log, at level INFO.

    One thread uses it.
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
        self._started = self._said = self._clock.now()
        wanted = _somebody_looks() if progress is None else progress
        options: Optional[Mapping[str, Any]] = wanted if isinstance(wanted, Mapping) else {} if wanted else None
        self._bar = None if options is None else _bar({"total": total, "initial": done, **options})
        self._talks = progress is None and self._bar is None

    def skip(self, count: int) -> None:
        """Rows that turned out to be done before."""
        self._before += count
        self._move(count)

    def add(self, succeeded: int, failed: int = 0, usage: Optional[Usage] = None) -> None:
        """So many rows have ended, and took so many tokens."""
        self._failed += failed
        self._bill.add(usage)
        self._move(succeeded + failed)

    def _move(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count, self._facts())
        elif self._talks and self._clock.now() - self._said >= _LINE_EVERY:
            self._said = self._clock.now()
            self._say(self.line())

    def _facts(self) -> Dict[str, str]:
        facts = {"failed": f"{self._failed:,}"} if self._failed else {}
        if self._bill.cost is not None:
            facts["cost"] = dollars(self._bill.cost)
        return facts

    def line(self) -> str:
        """The state in one line."""
        here = self._done - self._before
        elapsed = max(self._clock.now() - self._started, 1e-9)
        rate = here / elapsed
        of_total = "" if self._total is None else f" of {self._total:,}"
        parts = [f"{self._done:,}{of_total} rows", f"{rate:,.1f} rows/s"]
        parts += [f"{value} {name}" if name == "failed" else value for name, value in self._facts().items()]
        if self._total is not None and rate > 0:
            parts.append(f"about {_duration((self._total - self._done) / rate)} left")
        return ", ".join(parts)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _bar(options: Dict[str, Any]) -> Optional[TerminalBar]:
    if options.get("disable"):
        return None
    from tqdm.auto import tqdm  # it looks for a notebook when imported: not before somebody wants a bar

    return TerminalBar(tqdm(**{"unit": "row", **options}))


def _duration(seconds: float) -> str:
    """A time for a person: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
