"""A tqdm bar that is drawn by a thread of its own, fits the width of its terminal, and makes room for the log.

Threads that end items only count them.  One daemon thread per open bar draws: it holds no lock of the engine, and it
ends with the bar, with the interpreter, and when the bar is dropped without being closed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import math
import os
import sys
import threading
import weakref
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, Mapping, Optional, Tuple, Type

from .._locks import new_lock, run_beside
from .._reentrancy import runs_user_code

__all__ = ["LiveBar", "Ticker"]

logger = logging.getLogger("chatpool")

_DRAW_EVERY_SECONDS = 0.1  # while items end
_STATE_EVERY_SECONDS = 0.5  # while none does
_STALE_RATE_SECONDS = 2.0  # without an end of an item
_WAIT_FOR_THREAD_SECONDS = 1.0  # a terminal that takes no more text must not keep a run from ending

_UNKNOWN_SIZE = (79, 23)  # of terminals without a size, as containers and some continuous integrations have them
_PIECES = ("n_fmt", "total_fmt", "elapsed", "remaining", "rate_fmt")
# Where the line is too short, the first of these goes first, after the graphics; the count always stays.
_LEAST_IMPORTANT_FIRST = ("asked again", "cost", "retried", "rate", "percentage", "failed", "time", "reason", "desc")
_MIN_GRAPHICS_COLUMNS = 4
_MIN_REASON_COLUMNS = 12  # of a reason that is cut


class Ticker:
    """Calls a method every now and then, until it is closed or the method's object is gone.

    The seconds are real ones, whatever clock is installed: a person looks at what is drawn.

    Args:
        tick: a bound method; its object is not kept alive.
        seconds: between two calls.
    """

    def __init__(self, tick: Callable[[], None], seconds: float = _DRAW_EVERY_SECONDS) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()
        self._thread = threading.Thread(
            target=_tick, args=(weakref.WeakMethod(tick), seconds, self._closed), name="chatpool-progress", daemon=True
        )
        _tickers[weakref.ref(self, _tickers.pop)] = None
        with contextlib.suppress(RuntimeError):  # no thread can be started: the bar stands still
            run_beside(self._thread.start)

    def close(self) -> None:
        """Tick no more."""
        with contextlib.suppress(RuntimeError):  # closed before
            self._closed.release()

    def at_exit(self) -> None:
        """Tick no more, and wait for the last tick: the interpreter dies if a thread is writing when it ends."""
        self.close()
        with contextlib.suppress(RuntimeError):  # it never started
            self._thread.join(_WAIT_FOR_THREAD_SECONDS)


@runs_user_code  # handlers of the log, and streams
def _tick(tick: weakref.WeakMethod[Callable[[], None]], seconds: float, closed: Any) -> None:
    """Run as the target of a thread."""
    while not closed.acquire(timeout=seconds):
        method = tick()
        if method is None:
            return
        try:
            method()
        except Exception:  # say, of a stream that somebody has closed
            logger.debug("the progress is not shown any more", exc_info=True)
            return
        del method


# Not a WeakSet, which cannot be looked through while other threads add to it.
_tickers: Dict[weakref.ref[Ticker], None] = {}
_bars: Dict[weakref.ref[LiveBar], None] = {}


def _at_exit() -> None:
    for ticker in [reference() for reference in list(_tickers)]:
        if ticker is not None:
            ticker.at_exit()
    for bar in [reference() for reference in list(_bars)]:
        if bar is not None:
            bar.close()


def _after_fork_in_child() -> None:
    """Leave the parent's bars to the parent, whose thread may have held any lock of theirs."""
    bars = [reference() for reference in list(_bars)]
    for bar in bars:
        if bar is not None:
            bar.abandon()
    if bars:
        sys.modules["tqdm.std"].tqdm.set_lock(threading.RLock())


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class LiveBar:
    """A bar on a terminal or in a notebook.  Any thread may use it.

    While the log is written the bar is hidden, so that lines of the log stand above it.

    Args:
        options: tqdm's.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._bar = _tqdm_bar(options)
        self._lock = new_lock()  # tqdm's own counter is not safe against concurrent updates
        self._uncounted: Deque[int] = deque()
        self._lines_in_progress = 0
        self._is_closed = False
        self._filter = _HidingFilter(self)
        logger.addFilter(self._filter)
        _bars[weakref.ref(self, _bars.pop)] = None

    @property
    def state_seconds(self) -> float:
        """Seconds after which it is drawn again although no item has ended."""
        return max(_STATE_EVERY_SECONDS, getattr(self._bar, "mininterval", None) or 0.0)  # a disabled one has none

    def advance(self, count: int) -> None:
        """Count items that have ended; takes no lock and draws nothing."""
        self._uncounted.append(count)

    def skip(self, count: int) -> None:
        """Count items that had ended before: they do not count for the rate."""
        with self._lock:
            for name in () if self._bar.disable else ("n", "initial", "last_print_n"):
                setattr(self._bar, name, getattr(self._bar, name) + count)

    def draw(self, state: Optional[Mapping[str, str]] = None) -> None:
        """Draw what has changed.

        Args:
            state: the texts behind the bar, by the names in ``_LEAST_IMPORTANT_FIRST``; None for those before.
        """
        with self._lock:
            if self._is_closed:
                return
            count = self._take_count()
            if self._lines_in_progress:
                self._bar.n += count  # drawn after these lines
                return
            if count:
                self._bar.update(count)
            if state is not None:
                self._set_state(state)
                self._redraw()

    def _take_count(self) -> int:
        return sum(self._uncounted.popleft() for _ in range(len(self._uncounted)))

    def _set_state(self, state: Mapping[str, str]) -> None:
        self._bar.state = state
        self._bar.postfix = ", ".join(state.values())  # for a notebook, and for a form of the user's own

    def _redraw(self) -> None:
        with self._bar.get_lock():  # tqdm's own methods would keep it after an exception
            self._bar.refresh(nolock=True)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar within the block."""
        with self._lock:
            self._lines_in_progress += 1
            with self._bar.get_lock():
                self._bar.clear(nolock=True)
        # Without this lock and tqdm's: a handler of the log may wait for a thread that waits for one of them.
        try:
            yield
        finally:
            with self._lock:
                self._lines_in_progress -= 1
                if not self._lines_in_progress:
                    self._bar.n += self._take_count()
                    self._redraw()

    def close(self, state: Optional[Mapping[str, str]] = None) -> None:
        """Draw the bar with its last state, and leave it as it stands; closing again does nothing."""
        logger.removeFilter(self._filter)
        if not self._lock.acquire(timeout=_WAIT_FOR_THREAD_SECONDS):
            return
        try:
            if not self._is_closed:
                self._is_closed = True
                self._bar.n += self._take_count()
                if state is not None:
                    self._set_state(state)
                self._bar.close()
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """Never draw again, and wait for no lock."""
        logger.removeFilter(self._filter)
        self._lock = new_lock()
        self._is_closed = self._bar.disable = True


class _HidingFilter(logging.Filter):
    """Calls the handlers of the log itself, while all bars are hidden."""

    def __init__(self, bar: LiveBar) -> None:
        super().__init__()
        # Not while lines are filtered: logging would pass over the filter behind this one.
        self._bar = weakref.ref(bar, lambda _: logger.removeFilter(self))

    def filter(self, record: logging.LogRecord) -> bool:
        if self._bar() is None:  # it was dropped without being closed
            return True
        with contextlib.ExitStack() as stack:
            for reference in list(_bars):
                bar = reference()
                if bar is not None:
                    stack.enter_context(bar.hidden())
            logger.callHandlers(record)
        return False


# -- tqdm ----------------------------------------------------------------------------------------------------------


def _tqdm_bar(options: Mapping[str, Any]) -> Any:
    from tqdm import std
    from tqdm.auto import tqdm  # here: its import looks for a notebook, which takes time

    std.tqdm.get_lock()  # type: ignore[no-untyped-call]  # it is made where it is first asked for, and only there a forked child can replace it
    # It is told ten times a second, and draws each time that it is told of something.
    defaults = {"miniters": 1, "mininterval": _DRAW_EVERY_SECONDS / 2}
    if any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__):
        return tqdm(**{**defaults, **options})  # the browser fits it
    file = sys.stderr if options.get("file") is None else options["file"]
    if file is None or getattr(file, "closed", False):
        return _fitted_class(tqdm)(disable=True)
    options = {**defaults, **options, "file": _Terminal(file)}
    if "ncols" in options or not options.pop("dynamic_ncols", True):
        return _fitted_class(tqdm)(**options)
    size_of = functools.partial(_size_of, std._screen_shape_wrapper())  # type: ignore[attr-defined]  # not in the stubs
    columns, rows = size_of(file)
    bar = _fitted_class(tqdm)(**{"ncols": columns, "nrows": rows, **options})
    bar.dynamic_ncols = size_of
    return bar


def _size_of(measure: Callable[[Any], Tuple[Any, Any]], file: Any) -> Tuple[Optional[int], Optional[int]]:
    """Return columns and rows of a terminal, None where it is none; those of a terminal that knows none are guessed."""
    columns, rows = measure(file)
    return (columns, rows) if columns is None or columns > 0 else _UNKNOWN_SIZE


class _Terminal:
    """A stream that is left alone once a write has failed: no call, and no line of the log, fails with the bar.

    Args:
        stream: takes the bar.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._is_gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        return other is self or bool(self._stream == other)  # by which tqdm.write() finds the bars to hide

    def __hash__(self) -> int:
        return hash(self._stream)

    def write(self, text: str) -> None:
        self._try(self._stream.write, text)

    def flush(self) -> None:
        self._try(getattr(self._stream, "flush", None))

    def _try(self, method: Optional[Callable[..., object]], *arguments: str) -> None:
        if method is None or self._is_gone:
            return
        try:
            method(*arguments)
        except Exception:  # not to the log: this thread holds the lock of a bar, which the log would wait for
            self._is_gone = True


@functools.cache
def _fitted_class(tqdm: Type[Any]) -> Type[Any]:
    """Return tqdm's class, with lines of which the count is the last thing to go in a narrow terminal."""

    class FittedBar(tqdm):  # type: ignore[misc]  # a class of tqdm's
        state: Mapping[str, str] = {}

        @property
        def format_dict(self) -> Dict[str, Any]:
            values = {**super().format_dict, "state": self.state}
            if self._time() - getattr(self, "last_print_t", math.inf) >= _STALE_RATE_SECONDS:
                values["rate"] = None  # that of the last items says nothing any more, and tqdm takes the mean
            return values

        @staticmethod
        def format_meter(*arguments: Any, state: Mapping[str, str] = {}, **options: Any) -> str:
            if arguments or options.get("bar_format") or not options.get("ncols"):
                return str(tqdm.format_meter(*arguments, **options))
            return _fitted_line(tqdm.format_meter, options, state)

    return FittedBar


def _fitted_line(format_meter: Callable[..., str], options: Mapping[str, Any], state: Mapping[str, str]) -> str:
    """Return the line of a bar for ``options["ncols"]`` columns."""
    from tqdm.utils import disp_len, disp_trim

    columns: int = options["ncols"]
    pieces = _pieces(format_meter, options)
    texts = {"desc": options.get("prefix") or "", **pieces, **state}
    line = _line(texts)
    room = columns - disp_len(line) - len("||")
    if pieces["percentage"] and room >= _MIN_GRAPHICS_COLUMNS:
        graphics = format_meter(**{**options, "ncols": room, "bar_format": "{bar}"})
        return _line({**texts, "graphics": f"|{graphics}| "})
    for name in _LEAST_IMPORTANT_FIRST:
        excess = disp_len(line) - columns
        if excess <= 0:
            break
        text = texts.pop(name, "")
        if name == "reason" and len(text) - excess >= _MIN_REASON_COLUMNS:
            texts[name] = text[: len(text) - excess - len("...")].rstrip() + "..."
        line = _line(texts)
    return str(disp_trim(line, columns))


def _pieces(format_meter: Callable[..., str], options: Mapping[str, Any]) -> Dict[str, str]:
    """Return the parts of tqdm's own line by name."""
    # A line break is in none of them.
    bar_format = "\n".join(f"{{{name}}}" for name in _PIECES) + "\n{percentage:3.0f}%"
    filled = format_meter(**{**options, "ncols": None, "prefix": "", "postfix": None, "bar_format": bar_format})
    count, total, elapsed, remaining, rate, percentage = filled.split("\n")
    if total == "?" or not options["total"]:
        return {"percentage": "", "count": f"{count}{options['unit']}", "time": elapsed, "rate": rate}
    return {"percentage": percentage, "count": f"{count}/{total}", "time": f"{elapsed}<{remaining}", "rate": rate}


def _line(texts: Mapping[str, str]) -> str:
    """Return the parts as tqdm puts them: ``desc:  40%|####      | 4/10 [00:02<00:03, 2.00call/s, 1 failed]``."""
    desc = texts.get("desc", "")
    percentage = texts.get("percentage", "")
    behind = [text for name, text in texts.items() if name not in ("desc", "percentage", "graphics", "count") and text]
    graphics = texts.get("graphics") or (" " if percentage else "")
    colon = ": " if desc and not desc.endswith(": ") else ""
    return f"{desc}{colon}{percentage}{graphics}{texts['count']}" + (f" [{', '.join(behind)}]" if behind else "")
