"""Progress of runs: a bar where a person looks on, and a line a minute in the log elsewhere.

Both tell why a run waits, as long as it does.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Callable, Dict, Optional, Union

from .._locks import new_lock
from .._values import Waiting, duration_text
from ..clock import Clock, current_clock
from ..events import Event
from ..prices import Bill, Prices, dollars
from .bar import LiveBar, Ticker
from .listeners import Statistics

__all__ = ["Progress", "RunProgress", "check_progress", "run_progress"]

logger = logging.getLogger("chatpool")

_LINE_SECONDS = 60.0  # between two lines of the log
_SILENT_SECONDS = 2.0  # without an end of an item, after which the calls in flight are told

Progress = Union[bool, Mapping[str, Any], None]


class RunProgress:
    """Shows the progress of one run: items, failures, retries, cost so far, and why it waits.

    It is a listener of the run's events, which tell of retries and tokens; the run itself counts its items.

    Args:
        options: tqdm's, for a bar; None for lines.
        total: how many items there are, None if that is not known.
        unit: name of an item.
        prices: for the cost; without them it is shown only if the servers state it.
        bill: tokens and costs that the caller counts. Default: those of the events count.
        say: takes the lines. Default: the log, at level INFO.

    Attributes:
        elsewhere: attempts that other processes of the run have repeated ("retried"), and answers that they have asked
            for again ("reasked").
    """

    kinds = Statistics.kinds

    def __init__(
        self,
        options: Optional[Mapping[str, Any]],
        total: Optional[int],
        unit: str = "call",
        *,
        prices: Optional[Prices] = None,
        bill: Optional[Bill] = None,
        say: Optional[Callable[[str], None]] = None,
    ) -> None:
        self._options = None if options is None else {"total": total, "unit": unit, **options}
        self._total = total
        self._unit = unit
        self._statistics = Statistics(prices)
        self._bill = bill
        self._say = say or logger.info
        self._lock = new_lock()
        self._before = self._ended = self._failed = 0
        self._clock: Clock = current_clock()
        self._started = self._line_at = self._clock.now()
        self._bar: Optional[LiveBar] = None
        self._ticker: Optional[Ticker] = None
        self._ended_at_state = 0
        self._shows_reason = False
        self._state_at = self._moved_at = time.monotonic()
        self._waiting: Optional[Callable[[], Waiting]] = None
        self._is_abandoned = False
        self.elsewhere = {"retried": 0, "reasked": 0}

    def open(self, waiting: Callable[[], Waiting]) -> None:
        """Show it, unless it is shown; ``waiting`` tells why the run waits, and must not refer to this object."""
        if self._ticker is not None:
            return
        with self._lock:
            self._waiting = waiting
            if self._options is not None:
                self._bar = LiveBar(self._options)
                self._bar.skip(self._before)
            self._ticker = Ticker(self.tick)

    def __call__(self, event: Event) -> None:
        self._statistics(event)

    def advance(self, succeeded: int, failed: int = 0) -> None:
        """Count items that have ended now."""
        with self._lock:
            self._ended += succeeded + failed
            self._failed += failed
            if self._bar is not None:
                self._bar.advance(succeeded + failed)

    def skip(self, count: int) -> None:
        """Count items that had ended before."""
        with self._lock:
            self._before += count
            if self._bar is not None:
                self._bar.skip(count)

    def tick(self) -> None:
        """Draw the bar, or write a line when it is time."""
        now = time.monotonic()
        if self._is_abandoned:
            self.close()
        elif self._bar is not None:
            is_going_on = self._shows_reason and self._ended != self._ended_at_state  # so it may have been all
            is_due = is_going_on or now - self._state_at >= self._bar.state_seconds
            if is_due:
                self._state_at = now
            self._bar.draw(self.state() if is_due else None)
        elif self._clock.now() - self._line_at >= _LINE_SECONDS:
            self._line_at = self._clock.now()
            self._say(self.line())

    def state(self) -> Dict[str, str]:
        """Return the texts behind the bar by name, the most important first."""
        counts = self._statistics.snapshot()
        cost = counts["cost"] if self._bill is None else self._bill.cost
        retried, reasked = (counts[name] + self.elsewhere[name] for name in ("retried", "reasked"))
        texts = {"reason": self._reason() or ""}
        self._shows_reason = bool(texts["reason"])
        numbers = {"failed": self._failed, "retried": retried, "asked again": reasked}
        texts.update((name, f"{number:,} {name}") for name, number in numbers.items() if number)
        texts["cost"] = "" if cost is None else dollars(cost)
        return {name: text for name, text in texts.items() if text}

    def _reason(self) -> Optional[str]:
        """Return why the run waits; None while it does not."""
        waiting, now = self._waiting, time.monotonic()
        if self._ended != self._ended_at_state:
            self._ended_at_state, self._moved_at = self._ended, now
        if waiting is None:
            return None
        reason, in_flight = waiting()
        if reason is None and in_flight and now - self._moved_at >= _SILENT_SECONDS:
            return f"{in_flight:,} in flight"
        return reason

    def line(self) -> str:
        """Return the state in one line."""
        elapsed = max(self._clock.now() - self._started, 1e-9)
        rate, done = self._ended / elapsed, self._before + self._ended
        of_total = "" if self._total is None else f" of {self._total:,}"
        state = self.state()
        reason = state.pop("reason", None)
        parts = [f"{done:,}{of_total} {self._unit}s", f"{rate:,.1f} {self._unit}s/s", *state.values()]
        if self._total is not None and rate > 0:
            parts.append(f"about {duration_text((self._total - done) / rate)} left")
        return ", ".join(parts) + (f"; {reason}" if reason else "")

    def abandon(self) -> None:
        """Have the thread that draws close it; takes no lock, as the garbage collector may call this."""
        self._is_abandoned = True

    def close(self) -> None:
        """Leave the bar as it stands, with nothing that the run waits for."""
        self._waiting = None
        if self._ticker is not None:
            self._ticker.close()
        if self._bar is not None:
            self._bar.close(self.state())


def run_progress(
    progress: Progress,
    total: Optional[int],
    unit: str = "call",
    *,
    prices: Optional[Prices] = None,
    bill: Optional[Bill] = None,
    say: Optional[Callable[[str], None]] = None,
) -> Optional[RunProgress]:
    """Return the progress of a run; None where nothing is to be shown.

    Args:
        progress: None for a bar on a terminal or in a notebook and lines elsewhere, True or False for a bar or nothing,
            a mapping of tqdm's options for a bar made with them.
        total, unit, prices, bill, say: as for :class:`RunProgress`; without ``say`` there are lines only where the log
            takes them.

    Raises:
        TypeError: ``progress`` is something else.
    """
    check_progress(progress)
    options: Optional[Mapping[str, Any]] = progress if isinstance(progress, Mapping) else {}
    if progress is False or (options and options.get("disable")):
        return None
    if progress is None and not _is_interactive():
        if say is None and not logger.isEnabledFor(logging.INFO):
            return None
        options = None
    return RunProgress(options, total, unit, prices=prices, bill=bill, say=say)


def check_progress(progress: Progress) -> None:
    """Refuse what says nothing about the progress.

    Raises:
        TypeError: ``progress`` is not None, True, False or a mapping.
    """
    if progress is not None and not isinstance(progress, (bool, Mapping)):
        raise TypeError(f"progress must be None, True, False or a dict of tqdm options, got {progress!r}")


def _is_interactive() -> bool:
    """Return True in a notebook, and if stderr is a terminal."""
    if "ipykernel" in sys.modules:
        return True
    isatty = getattr(sys.stderr, "isatty", None)
    return bool(isatty and isatty())
