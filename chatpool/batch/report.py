"""The report of a run, read from its files: rows, failures, tokens, times, and the options of the run."""

from __future__ import annotations

import gzip
import os
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from .._display import SHARES, Fact, block, latency_text, percentiles, short, table, token_facts
from .._journal import OK, Record, decode_value, error_of, is_journal, read_journal, read_runs
from .._wire.response import answering_model, usage_of
from ..errors import ConfigurationError, status_error_class
from ..prices import Bill, Charge, PricesLike, dollars, prices_of
from ..types import Usage
from .jsonl import charges_of, error_code, price_share, read_result
from .output_files import Paths
from .timeline import Exchanges, OwnAttempts, Timeline

__all__ = ["Report", "report"]

_SHOWN_FAILURES = 5
_NAME_CHARACTERS, _MESSAGE_CHARACTERS = 200, 2000


@dataclass
class Report:
    """The contents of a run's files, as counts and times.

    Attributes:
        name: the file.
        succeeded: rows with an answer.
        failures: rows without one, by cause.
        models: answers by model.
        written: tokens that each answer has, in any order.
        latencies: seconds of the last exchange of each request; empty without a journal.
        attempts: exchanges; 0 without a journal.
        waited: seconds spent waiting before another attempt, all rows together.
        refused_latencies: seconds of the attempts that were made again; empty without a journal.
        failed_rows: the first five rows without an answer, each with its name, and its error with what to do.
        runs: of each run of the journal, when it began to send, in seconds since the epoch, and its options; empty in
            journals of version 0.1.0.
        started_at, ended_at: seconds since the epoch; None without a journal.
        timeline: the times of attempts and outcomes; None without a journal.
        bill: tokens and costs of the answers.
        batched: how many of the answers are the Batch API's, at half the price; they have no times.
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
    runs: List[Tuple[float, Dict[str, Any]]] = field(default_factory=list)
    started_at: Optional[float] = None
    ended_at: Optional[float] = None
    timeline: Optional[Timeline] = None
    bill: Bill = field(default_factory=Bill)
    batched: int = 0

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

    def facts(self) -> List[Fact]:
        """Return pairs of a name and a text."""
        facts: List[Fact] = [("rows", f"{self.rows:,}: {self.succeeded:,} answered, {self.failed:,} failed")]
        facts += [("", f"{count:,} x {cause}") for cause, count in self.failures.most_common(10)]
        facts += token_facts(self.usage)
        if self.cost is not None:
            facts.append(("cost", dollars(self.cost)))
            facts += [("", note) for note in [self.bill.note()] if note]
        if self.batched:
            facts.append(("Batch API", f"{self.batched:,} answers, at half the price"))
        if len(self.models) > 1:
            facts += [("models", f"{name}: {count:,}") for name, count in self.models.most_common(5)]
        if self.latencies:
            facts += self._times()
        return facts

    def _times(self) -> List[Fact]:
        rate = self.rows / self.seconds if self.seconds else 0.0
        return [
            ("latency", latency_text(self.latencies)),
            ("time", f"{self.seconds:,.1f} s, {rate:,.1f} rows/s"),
            ("attempts", f"{self.attempts:,}, {self.attempts - len(self.latencies):,} of them made again"),
            ("waits", f"{self.waited:,.1f} s before those, all rows together"),
        ]

    def add_answer(self, body: Any, charges: Optional[Sequence[Charge]] = None, *, share: float = 1.0) -> None:
        """Count an answer.

        Args:
            body: its JSON.
            charges: what all requests of the same row have cost; None where only the answer is known.
            share: the share of the price that it has cost.
        """
        self.succeeded += 1
        self.batched += share < 1
        usage, model = usage_of(body), answering_model(body)
        self.bill.add_all([Charge(usage, None, model)] if charges is None else charges, share=share)
        if usage is not None:
            self.written.append(usage.completion_tokens)
        if model is not None:
            self.models[short(model, _NAME_CHARACTERS)] += 1

    def html(self) -> str:
        """Return the report as one self-contained page with plots, below 150 kB."""
        from .report_html import page  # which needs this module

        return page(self)

    def __repr__(self) -> str:
        counts = f"{self.rows:,} rows, {self.succeeded:,} answered, {self.failed:,} failed"
        tokens = f"{self.usage.total_tokens:,} tokens"
        cost, seconds = dollars(self.cost or 0.0), f"{self.seconds:,.1f} s"
        more = [text for text, known in ((cost, self.cost is not None), (seconds, self.timeline is not None)) if known]
        return f"<Report of {short(self.name)}: {'; '.join([counts, tokens, *more])}>"

    def _repr_html_(self) -> str:
        rows = [(short(name), short(message, 300)) for name, message in self.failed_rows]
        return block(f"Report of {short(self.name)}", self.facts(), table(("row", "error"), rows))

    def add_failure(self, name: str, cause: str, message: str, advice: str = "") -> None:
        """Count a row without an answer."""
        self.failures[short(cause, _NAME_CHARACTERS)] += 1
        if len(self.failed_rows) < _SHOWN_FAILURES:
            message = message if advice in message else f"{message}; {advice}"
            self.failed_rows.append((short(name, _NAME_CHARACTERS), short(message, _MESSAGE_CHARACTERS)))

    def add_attempts(self, record: Record, own: OwnAttempts) -> None:
        """Count the attempts of a record that no other has, and its times."""
        again = [*own.earlier, *(attempt for attempt in own.attempts if attempt.wait is not None)]
        self.attempts += len(own.earlier) + len(own.attempts)
        self.waited += sum(attempt.wait or 0.0 for attempt in again)
        self.refused_latencies.extend(attempt.elapsed for attempt in again)
        if own.attempts:
            self.latencies.append(own.attempts[-1].elapsed)
        self.started_at = min(record.at - own.seconds, self.started_at or record.at)
        self.ended_at = max(record.at, self.ended_at or record.at)
        if self.timeline is not None:
            self.timeline.add(record, own)


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
    run_report.runs = read_runs(path)
    run_report.timeline, exchanges = Timeline([at for at, _ in run_report.runs]), Exchanges()
    for record, is_last in read_journal(path):
        share = price_share(record)
        # Of a batch nobody knows when a row was sent and answered.
        run_report.add_attempts(record, exchanges.of(record) if share == 1 else OwnAttempts((), 0.0))
        stored = decode_value(record.value) if is_last else None
        if is_last and record.state == OK:
            run_report.add_answer(stored, charges_of(record, stored), share=share)
        elif is_last:
            error = error_of(record.error or {}, 0)
            run_report.add_failure(record.custom_id or f"row {record.row}", _cause(record), error.message, error.advice)
            run_report.bill.add_all(charges_of(record, stored), share=share)


def _cause(record: Record) -> str:
    error_facts = record.error or {}
    status = error_facts.get("status_code")
    if not isinstance(status, int) or status < 300:
        return error_code(error_facts)
    code = error_facts.get("code") or error_facts.get("type")
    return f"HTTP {status} {code}" if code else f"HTTP {status}"


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
                advice = status_error_class(result.status).advice if result.status else ""
                run_report.add_failure(
                    str(result.custom_id or f"line {number}"), cause, result.message or cause, advice
                )
    return has_lines
