"""Progress of runs that take hours: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, Mapping, Optional

from ..clock import Clock, current_clock
from ..prices import Bill, PricesLike, dollars, prices_of
from ..types import Usage
from .progress import Progress, TerminalBar, _somebody_looks

__all__ = ["RowProgress"]

logger = logging.getLogger("chatpool")

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
