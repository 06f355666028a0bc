"""The report of a run, read from its files: rows, failures, tokens, and a timeline of attempts and outcomes."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from .._journal import OK, Record, decode_value, is_journal, read_journal
from .._redaction import printable
from .._wire.response import usage_of
from ..errors import ConfigurationError
from ..prices import Bill, PricesLike, dollars, prices_of
from ..types import Usage
from .jsonl import error_code, read_result
from .output_files import Paths

__all__ = ["SHARES", "Histogram", "Report", "Timeline", "percentiles", "report"]


_PAUSE_SECONDS = 60.0  # without any event: the run was not under way
_TIME_BINS = 120  # of a timeline, at most
_MIN_BIN_SECONDS = 1.0
_SHOWN_FAILURES = 5


class Histogram(NamedTuple):
    """Events of a run in bins of equal length.

    Attributes:
        width: seconds of one bin.
        answered, failed: rows that ended in each bin.
        refused: attempts in each bin that the server refused or failed, and that were made again.
        in_flight: the mean number of attempts in flight in each bin.
    """

    width: float
    answered: List[int]
    failed: List[int]
    refused: List[int]
    in_flight: List[float]


class Timeline:
    """The times of a run's attempts and outcomes, without the pauses between runs.

    A record takes 40 bytes.

    Attributes:
        seconds: the working time so far.
    """

    def __init__(self) -> None:
        self._starts, self._ends = array("d"), array("d")  # of attempts
        self._refused = array("b")
        self._outcomes, self._succeeded = array("d"), array("b")
        self._paused_seconds = 0.0
        self._first = self._latest = 0.0
        self.seconds = 0.0

    def add(self, record: Record) -> None:
        """Add the record of a row; records come in the order in which the rows ended."""
        start = record.at - record.elapsed
        if not self._outcomes:
            self._first = self._latest = start
        elif start - self._latest > _PAUSE_SECONDS:
            self._paused_seconds += start - self._latest
        self._latest = max(self._latest, record.at)
        moment = start - self._first - self._paused_seconds
        self._outcomes.append(moment + record.elapsed)
        self._succeeded.append(record.state == OK)
        self.seconds = max(self.seconds, moment + record.elapsed)
        self._add_attempts(record, moment)

    def _add_attempts(self, record: Record, moment: float) -> None:
        # The first begins with the row and the last ends with it; a wait takes longer than was decided where no worker
        # was free at its end.
        attempts = record.attempts
        known = sum(attempt.elapsed + (attempt.wait or 0.0) for attempt in attempts)
        longer = max(0.0, record.elapsed - known) / max(1, len(attempts) - 1)
        for attempt in attempts:
            self._starts.append(moment)
            self._ends.append(moment + attempt.elapsed)
            self._refused.append(attempt.wait is not None)
            moment += attempt.elapsed + (attempt.wait or 0.0) + longer

    def histogram(self) -> Histogram:
        """Return the events in bins of equal length."""
        width = max(self.seconds / _TIME_BINS, _MIN_BIN_SECONDS)
        count = min(_TIME_BINS, int(self.seconds / width) + 1)

        def bin_of(moment: float) -> int:
            return min(max(int(moment / width), 0), count - 1)

        answered, failed, refused = [0] * count, [0] * count, [0] * count
        for moment, ok in zip(self._outcomes, self._succeeded):
            (answered if ok else failed)[bin_of(moment)] += 1
        for end, is_refused in zip(self._ends, self._refused):
            refused[bin_of(end)] += is_refused
        return Histogram(width, answered, failed, refused, self._in_flight(width, count))

    def _in_flight(self, width: float, count: int) -> List[float]:
        busy_seconds = [0.0] * count
        for start, end in zip(self._starts, self._ends):
            for index in range(max(0, int(start / width)), min(count, int(end / width) + 1)):
                busy_seconds[index] += max(0.0, min(end, (index + 1) * width) - max(start, index * width))
        return [seconds / width for seconds in busy_seconds]


SHARES = (0.5, 0.9, 0.95, 0.99, 1.0)


def percentiles(values: Sequence[float], shares: Sequence[float] = SHARES) -> Dict[float, float]:
    """Return the smallest value that each share of the values does not exceed; nothing for no values."""
    ordered = sorted(values)
    return {share: ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in shares if ordered}


@dataclass
class Report:
    """The contents of a run's files, as counts and times.

    Attributes:
        name: the file.
        succeeded: rows with an answer.
        failures: rows without one, by cause.
        models: answers by model.
        written: tokens that each answer has, in any order.
        latencies: seconds of each row's last attempt; empty without a journal.
        attempts: exchanges; 0 without a journal.
        waited: seconds spent waiting before another attempt, all rows together.
        refused_latencies: seconds of the attempts that were made again; empty without a journal.
        failed_rows: the first five rows without an answer, each with its name and its error.
        started_at, ended_at: seconds since the epoch; None without a journal.
        timeline: the times of attempts and outcomes; None without a journal.
        bill: tokens and costs of the answers.
    """

    name: str
    succeeded: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    written: array[int] = field(default_factory=lambda: array("l"))
    latencies: array[float] = field(default_factory=lambda: array("d"))
    attempts: int = 0
    waited: float = 0.0
    refused_latencies: array[float] = field(default_factory=lambda: array("d"))
    failed_rows: List[Tuple[str, str]] = field(default_factory=list)
    started_at: Optional[float] = None
    ended_at: Optional[float] = None
    timeline: Optional[Timeline] = None
    bill: Bill = field(default_factory=Bill)

    @property
    def rows(self) -> int:
        """Rows that have ended."""
        return self.succeeded + self.failed

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return sum(self.failures.values())

    @property
    def seconds(self) -> float:
        """The run's working time, pauses between runs left out; 0 without a journal."""
        return 0.0 if self.timeline is None else self.timeline.seconds

    @property
    def usage(self) -> Usage:
        """Tokens of all answers, those that were not taken included."""
        return self.bill.usage

    @property
    def cost(self) -> Optional[float]:
        """Dollars, as the servers state them or else by the prices; None where there is neither."""
        return self.bill.cost

    def percentiles(self, shares: Sequence[float] = SHARES) -> Dict[float, float]:
        """Seconds within which these shares of the last attempts ended; empty without a journal."""
        return percentiles(self.latencies, shares)

    def text(self) -> str:
        """Return the report for a terminal."""
        return "\n".join(f"{name:<12}{value}" for name, value in self.facts())

    def facts(self) -> List[Any]:
        """Return pairs of a name and a text."""
        facts = [("rows", f"{self.rows:,}: {self.succeeded:,} answered, {self.failed:,} failed")]
        facts += [("", f"{count:,} x {cause}") for cause, count in self.failures.most_common(10)]
        used = self.usage
        facts.append(("tokens", f"{used.prompt_tokens:,} read, {used.completion_tokens:,} written"))
        if used.cached_tokens:
            facts.append(("", f"{used.cached_tokens:,} of those read came from the prompt cache"))
        if used.reasoning_tokens:
            facts.append(("", f"{used.reasoning_tokens:,} of those written were reasoning"))
        if self.cost is not None:
            facts.append(("cost", dollars(self.cost)))
            facts += [("", note) for note in [self.bill.note()] if note]
        if len(self.models) > 1:
            facts += [("models", f"{name}: {count:,}") for name, count in self.models.most_common(5)]
        if self.latencies:
            facts += self._times()
        return facts

    def _times(self) -> List[Any]:
        shown = "  ".join(f"p{100 * share:g} {value:.2f} s" for share, value in self.percentiles().items())
        rate = self.rows / self.seconds if self.seconds else 0.0
        return [
            ("latency", shown.replace("p100", "longest")),
            ("time", f"{self.seconds:,.1f} s, {rate:,.1f} rows/s"),
            ("attempts", f"{self.attempts:,}, {self.attempts - len(self.latencies):,} of them made again"),
            ("waits", f"{self.waited:,.1f} s before those, all rows together"),
        ]

    def add_answer(self, body: Any, in_all: Optional[Usage] = None, asked: Optional[str] = None) -> None:
        """Count an answer.

        Args:
            body: its JSON.
            in_all: tokens of all answers to the same row, where there were others that were not taken.
            asked: the model that was asked for, where it has another name.
        """
        self.succeeded += 1
        usage, model = usage_of(body), _model_in(body)
        self.bill.add(in_all or usage, asked, model)
        if usage is not None:
            self.written.append(usage.completion_tokens)
        if model is not None:
            self.models[printable(model)] += 1

    def html(self) -> str:
        """Return the report as one self-contained page with plots, below 150 kB."""
        from .report_html import page  # which needs this module

        return page(self)

    def add_failure(self, name: str, cause: str, message: str) -> None:
        """Count a row without an answer."""
        self.failures[cause] += 1
        if len(self.failed_rows) < _SHOWN_FAILURES:
            self.failed_rows.append((printable(name), printable(message)))


def _model_in(body: Any) -> Optional[str]:
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


def report(path: Union[str, os.PathLike[str]], *, prices: Optional[PricesLike] = None) -> Report:
    """Read the files of a run.

    Args:
        path: a run's output, with its file of errors and its journal beside it; a journal, also one of
            :meth:`chatpool.ChatPool.map`; or an output file of the real Batch API, vLLM or the cookbook's script.
        prices: dollars per million tokens, as for :func:`run`. Those by model apply to the models that
            were asked for, where there is a journal that knows them, or else to those that have answered.

    Raises:
        ConfigurationError: a file cannot be read, or is none of these.
        TypeError: ``prices`` have no valid form.
    """
    path = os.fspath(path)
    run_report = Report(path, bill=Bill(None if prices is None else prices_of(prices)))
    try:
        journal = path if is_journal(path) else Paths.of(path.removesuffix(".gz")).journal
        if os.path.exists(journal):
            _read_journal(run_report, journal)
        else:
            errors = Paths.of(path.removesuffix(".gz")).errors
            _read_lines(run_report, [path] if errors is None else [path, errors])
    except OSError as error:
        raise ConfigurationError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    return run_report


def _read_journal(run_report: Report, path: str) -> None:
    run_report.timeline = Timeline()
    for record, is_last in read_journal(path):
        run_report.timeline.add(record)
        run_report.attempts += len(record.attempts)
        run_report.waited += sum(attempt.wait or 0.0 for attempt in record.attempts)
        run_report.refused_latencies.extend(attempt.elapsed for attempt in record.attempts if attempt.wait is not None)
        if record.attempts:
            run_report.latencies.append(record.attempts[-1].elapsed)
        if run_report.started_at is None or record.at - record.elapsed < run_report.started_at:
            run_report.started_at = record.at - record.elapsed
        run_report.ended_at = max(record.at, run_report.ended_at or record.at)
        if is_last and record.state == OK:
            run_report.add_answer(decode_value(record.value), record.usage, record.model)
        elif is_last:
            message = str((record.error or {}).get("message") or "")
            run_report.add_failure(record.custom_id or f"row {record.row}", _cause(record), message)
            run_report.bill.add(record.usage, record.model, _model_in(decode_value(record.value)))


def _cause(record: Record) -> str:
    error_facts = record.error or {}
    status = error_facts.get("status_code")
    if not isinstance(status, int) or status < 300:
        return error_code(error_facts)
    code = error_facts.get("code") or error_facts.get("type")
    return printable(f"HTTP {status} {code}") if code else f"HTTP {status}"


def _read_lines(run_report: Report, paths: Iterable[str]) -> None:
    has_lines = False
    for path in paths:
        if path == run_report.name or os.path.exists(path):
            has_lines = _read_file(run_report, path) or has_lines
    if not has_lines:
        raise ConfigurationError(f"{run_report.name} has no line of a batch output")


def _read_file(run_report: Report, path: str) -> bool:
    """Add the lines of a file; return False if it has none."""
    with open(path, "rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    has_lines = False
    text_options: Any = {"encoding": "utf-8", "errors": "replace"}
    with gzip.open(path, "rt", **text_options) if is_gzip else open(path, **text_options) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                result = read_result(line)
            except (ValueError, RecursionError) as error:
                raise ConfigurationError(
                    f"line {number} of {path} is no line of a batch output: {error}; of a run whose output is a table, "
                    "name the journal"
                ) from error
            has_lines = True
            if result.ok:
                run_report.add_answer(result.body)
            else:
                cause = f"HTTP {result.status} {result.code}" if result.status else str(result.code)
                run_report.add_failure(
                    str(result.custom_id or f"line {number}"), printable(cause), result.message or cause
                )
    return has_lines
