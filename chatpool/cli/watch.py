"""``chatpool watch``: a batch run under way, seen from another terminal."""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import time
from argparse import Namespace
from collections import deque
from typing import Any, Deque, Iterator, List, Mapping, Optional, Tuple

from tqdm import tqdm
from tqdm.utils import disp_trim

from .._redaction import printable
from ..batch import report
from ..batch.watching import STALE_SECONDS, RunView, journal_of, look, number_in
from ..prices import dollars
from .command_parser import CommandParser
from .terminal import FATAL, OK, complain

__all__ = ["add_watch"]

_LOOK_SECONDS = 1.0
_LINE_SECONDS = 10.0  # between two lines where the output is no terminal
_MIN_SECONDS = 0.001  # that give a rate
_RATE_LOOKS = 30  # of which the rate is the mean
_MAX_WIDTH = 100
_MAX_HOST = 255  # characters of a name of DNS


def add_watch(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "watch",
        usage="%(prog)s [--once] OUT",
        help="show a run that is under way in another terminal",
        description=(
            "Show a run that is under way in another terminal: rows, rate, calls in flight, failures by cause, waits, "
            "time left. It ends when the run ends. Ctrl-C ends the watching, and not the run."
        ),
        epilog="exit codes: 0 the run has ended (or goes on, with --once), 2 there is no run, 3 the run was killed",
    )
    command.add_argument("output", metavar="OUT", help="the output of the run, or its journal")
    command.add_argument("--once", action="store_true", help="show it once")
    command.set_defaults(run=_watch)


def _watch(arguments: Namespace) -> int:
    """Show the run until it ends, and return the exit code."""
    output, journal = arguments.output, journal_of(arguments.output)
    screen, rate = _Screen(), _Rate()
    view = last = look(journal)
    while view.is_running:
        rate.add(view)
        screen.show(_lines_of(output, view, rate.rows_per_second, has_bar=screen.redraws))
        if arguments.once:
            return OK
        last = view if view.status is not None else last
        time.sleep(_LOOK_SECONDS)
        view = look(journal)
    screen.show_last(_end_lines(journal, view, last))
    if view.was_killed:
        complain(f"the run to {output} is not running: it was killed; the same command goes on from where it ended")
        return FATAL
    return OK


class _Screen:
    """Shows lines in the place of those before, on a terminal; elsewhere on one line, and not each time.

    Attributes:
        redraws: whether it is a terminal on which lines can be replaced.
    """

    def __init__(self) -> None:
        can_redraw = os.name != "nt" and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
        self.redraws = can_redraw and sys.stdout.isatty()
        self._shown = 0
        self._next_at = -math.inf

    def show(self, lines: List[str]) -> None:
        """Show the state."""
        if self.redraws:
            width = _width()
            print(self._clearing() + "\n".join(disp_trim(line, width) for line in lines), flush=True)
            self._shown = len(lines)
        elif time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + _LINE_SECONDS
            print("; ".join(line.strip() for line in lines), flush=True)

    def show_last(self, lines: List[str]) -> None:
        """Show the end."""
        print(self._clearing() + "\n".join(lines), flush=True)

    def _clearing(self) -> str:
        return f"\x1b[{self._shown}F\x1b[J" if self._shown else ""


def _width() -> int:
    return max(1, min(shutil.get_terminal_size().columns - 1, _MAX_WIDTH))


class _Rate:
    """The rate of a run in the last half minute."""

    def __init__(self) -> None:
        self._looks: Deque[Tuple[float, int]] = deque(maxlen=_RATE_LOOKS)
        self.rows_per_second: Optional[float] = None

    def add(self, view: RunView) -> None:
        """Take a state; the first of them alone gives the rate since the run began."""
        status = view.status or {}
        elapsed, done = number_in(status, "elapsed"), _done(status)
        if not self._looks or elapsed > self._looks[-1][0]:
            self._looks.append((elapsed, done))
        seconds, rows = elapsed - self._looks[0][0], done - self._looks[0][1]
        if seconds <= 0:
            seconds, rows = elapsed, done - int(number_in(status, "done_before"))
        self.rows_per_second = rows / seconds if seconds >= _MIN_SECONDS else None


def _done(status: Mapping[str, Any]) -> int:
    return int(number_in(status, "succeeded") + number_in(status, "failed"))


def _lines_of(output: str, view: RunView, rate: Optional[float], *, has_bar: bool) -> List[str]:
    """Return the state of a run under way."""
    status = view.status
    if status is None:
        return [printable(f"{output}: a run has begun, and has not said yet how far it is")]
    where = f"process {int(number_in(status, 'process'))} on {str(status.get('host'))[:_MAX_HOST]}"
    lines = [f"{output}: {where}"]
    if view.age > STALE_SECONDS:
        lines.append(f"  it has not reported for {view.age:,.0f} s: is it stopped, or the machine overloaded?")
    if not status.get("is_sending"):
        lines.append("  it reads the input; nothing is sent yet")
    else:
        lines += [_bar(status, rate) if has_bar else _text(status, rate), *_details(status)]
    return [printable(re.sub(r"\s", " ", line)) for line in lines]


def _bar(status: Mapping[str, Any], rate: Optional[float]) -> str:
    total = int(number_in(status, "total")) or None
    done, elapsed = _done(status), number_in(status, "elapsed")
    bar: str = tqdm.format_meter(
        done,
        total,  # type: ignore[arg-type]  # it takes None
        elapsed,
        ncols=_width() - 2,
        unit="row",
        rate=rate,
        initial=int(number_in(status, "done_before")),
    )
    return f"  {bar}"


def _text(status: Mapping[str, Any], rate: Optional[float]) -> str:
    total, done = int(number_in(status, "total")), _done(status)
    parts = [f"{done:,} of {total:,} rows" if total else f"{done:,} rows"]
    if rate:
        parts.append(f"{rate:,.1f} rows/s")
        if total:
            parts.append(f"{tqdm.format_interval(max(0, total - done) / rate)} left")
    return ", ".join(parts)


def _details(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield what stands below the bar."""
    calls = [f"{number_in(status, 'in_flight'):,.0f} in flight"]
    if number_in(status, "parked"):
        calls.append(f"{number_in(status, 'parked'):,.0f} waiting to retry")
    if number_in(status, "retried"):
        calls.append(f"{number_in(status, 'retried'):,.0f} attempts retried")
    yield f"  {', '.join(calls)}"
    causes = status.get("causes")
    if number_in(status, "failed"):
        causes = causes if isinstance(causes, dict) else {}
        shown = sorted(causes.items(), key=lambda pair: -number_in(causes, pair[0]))
        texts = ", ".join(f"{number_in(causes, name):,.0f} x {name}" for name, _ in shown[:5])
        yield f"  {number_in(status, 'failed'):,.0f} rows failed" + (f": {texts}" if texts else " in earlier runs")
    if isinstance(status.get("waits_for"), str):
        yield f"  {status['waits_for']}"
    if number_in(status, "tokens"):
        cost = f", {dollars(number_in(status, 'cost'))}" if status.get("cost") is not None else ""
        yield f"  {number_in(status, 'tokens'):,.0f} tokens{cost}"


def _end_lines(journal: str, view: RunView, last: RunView) -> List[str]:
    """Return the counts of a run that is not under way, out of its journal."""
    try:
        counts = report(journal)
    except FileNotFoundError:  # it had nothing in it
        return ["the run has ended; no row was answered"]
    total = int(number_in(last.status or {}, "total"))
    rows = max(total, counts.rows)
    pending = f", {rows - counts.rows:,} pending" if rows > counts.rows else ""
    state = "was killed" if view.was_killed else "has ended"
    lines = [f"the run {state}: {counts.succeeded:,} of {rows:,} rows answered, {counts.failed:,} failed{pending}"]
    return lines + [printable(f"  {count:,} x {cause}") for cause, count in counts.failures.most_common(5)]
