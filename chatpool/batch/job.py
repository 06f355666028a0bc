"""The options of a batch run, the rows that it selects, and its result."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from .. import errors
from .._client.batch_support import FailureLimit, MaxFailures
from .._display import block, short, table, token_facts
from .._journal import FAILED, RETRY, FolderLease, Record
from .._observe.progress import Progress, check_progress
from .._reprs import error_text
from .._structured.validation import AnswerRules
from ..config import positive_int, positive_seconds
from ..errors import ChatPoolError, ConfigurationError
from ..prices import Bill, PricesLike, dollars, prices_of
from ..types import Usage
from .jsonl import error_code
from .output_formats import BATCH, STDOUT, TEXT

__all__ = ["BatchProgress", "BatchResult", "Job", "RetryFailed", "Selection"]

_SHOWN_CAUSES = 5
_LINE_CHARACTERS = 320  # of a repr


@dataclass
class BatchResult:
    """The counts of a batch run, its end, and its files.

    Attributes:
        rows: rows that were selected; of standard input, as far as it was read.
        succeeded: how many of them have an answer, from this run or an earlier one.
        failed: how many are in the file of errors.
        done_before: how many had ended in an earlier run and were not sent.
        changed: how many had an answer to another request (another text, model or parameter), and were sent and
            paid again.
        pending: how many were not sent, or not to their end; the next run of the same call sends them.
        bad_lines: (number, reason) of the first lines that could not be used.
        bad_line_count: how many there were.
        blank_rows: rows of a table that are nothing but separators; they are not counted as rows, and not sent.
        removed_rows: rows of earlier runs that have left the input since the last one; they are left out of the output,
            and their records in the journal count again when they come back.
        usage: tokens of this run's answers.
        cost: dollars that this run's answers cost, as their servers state it or else by ``prices``; None without
            both. Of a dry run: the cost of having the prompts read.
        unpriced: which answers have no price, for a person; "" if ``cost`` is of all.
        estimated_tokens: of a dry run: tokens of the prompts to be sent, as a pool estimates them before it has
            seen an answer.
        prices: dollars per million tokens, as they were given.
        elapsed: seconds the run took.
        kind: the format that was detected for the input, for a person.
        fatal: the error that ended the run, None if it ran to its end.
        signal: the signal that ended it, None without one.
        causes: failures of this run by cause.
        output: file of the answers.
        errors: file of the errors; None if they are in the table of the answers, or went to standard output.
        journal: file of all outcomes; None for answers to standard output without ``journal=``.
        missing: of :func:`chatpool.batch.shards.merge`: the numbers of shards that are not done.
    """

    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    done_before: int = 0
    changed: int = 0
    pending: int = 0
    bad_lines: List[Tuple[int, str]] = field(default_factory=list)
    bad_line_count: int = 0
    blank_rows: int = 0
    removed_rows: int = 0
    usage: Usage = field(default_factory=Usage)
    estimated_tokens: int = 0
    cost: Optional[float] = None
    unpriced: str = ""
    prices: Optional[PricesLike] = None
    elapsed: float = 0.0
    kind: str = ""
    fatal: Optional[ChatPoolError] = None
    signal: Optional[int] = None
    causes: Dict[str, int] = field(default_factory=dict)
    output: Optional[str] = None
    errors: Optional[str] = None
    journal: Optional[str] = None
    missing: List[int] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<BatchResult: {short(self.summary(), _LINE_CHARACTERS)}>"

    def _repr_html_(self) -> str:
        facts = [
            ("rows", f"{self.rows:,}: {self.succeeded:,} answered, {self.failed:,} failed, {self.pending:,} pending")
        ]
        facts += [("", f"{count:,} x {cause}: {_advice_of(cause)}") for cause, count in self._sorted_causes()]
        if self.fatal is not None:
            facts.append(("ended early", error_text(self.fatal)))
        if self.done_before:
            facts.append(("done before", f"{self.done_before:,}"))
        facts += token_facts(self.usage)
        if self.cost is not None:
            facts.append(("cost", "; ".join(filter(None, [dollars(self.cost), self.unpriced]))))
        facts.append(("time", f"{self.elapsed:,.1f} s"))
        files = (("answers", self.output), ("errors", self.errors), ("journal", self.journal))
        facts += [(name, path) for name, path in files if path is not None]
        bad = table(("line", "cannot be used"), [(number, short(reason, 200)) for number, reason in self.bad_lines])
        return block("BatchResult", facts, bad)

    def _sorted_causes(self) -> List[Tuple[str, int]]:
        return sorted(self.causes.items(), key=lambda pair: -pair[1])[:_SHOWN_CAUSES]

    def bad_line(self, number: int, reason: str) -> None:
        """Count a line that cannot be used."""
        self.bad_line_count += 1
        if len(self.bad_lines) < 20:
            self.bad_lines.append((number, reason))

    def ended_before(self, succeeded: bool) -> None:
        """Count a row that ended in an earlier run and is not sent."""
        self.done_before += 1
        self.succeeded += succeeded
        self.failed += not succeeded

    def count(self, bill: Bill) -> None:
        """Take over tokens and costs."""
        self.usage, self.cost, self.unpriced = bill.usage, bill.cost, bill.note()

    def to_dict(self) -> Dict[str, Any]:
        """Return the counts, the end and the files as a dict that JSON has a form for, for the result of a task.

        ``usage`` is a dict of its counts, ``fatal`` what :meth:`~chatpool.errors.ChatPoolError.to_dict` returns, or
        None.  Prices are left out.
        """
        facts = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "prices"}
        facts["usage"] = asdict(self.usage)
        facts["fatal"] = None if self.fatal is None else self.fatal.to_dict()
        facts["bad_lines"] = [list(line) for line in self.bad_lines]
        return facts

    @property
    def _failures_place(self) -> str:
        if self.errors is not None:
            return f", see {self.errors}"
        return "" if self.output in (None, STDOUT) else f", see the column 'error' of {self.output}"

    def summary(self) -> str:
        """Return the counts, for a person, on one line."""
        parts = [f"{self.succeeded:,} of {self.rows:,} rows answered"]
        if self.failed:
            shown = ", ".join(f"{count:,} x {name}" for name, count in self._sorted_causes())
            parts.append(f"{self.failed:,} failed" + (f" ({shown})" if shown else "") + self._failures_place)
        if self.pending:
            parts.append(f"{self.pending:,} pending")
        if self.done_before:
            parts.append(f"{self.done_before:,} were done before")
        if self.changed:
            parts.append(f"{self.changed:,} had answers to other requests and were sent again")
        if self.removed_rows:
            verbs = ("has", "is") if self.removed_rows == 1 else ("have", "are")
            parts.append(f"{self.removed_rows:,} {verbs[0]} left the input and {verbs[1]} left out of the output")
        if self.blank_rows:
            parts.append(f"{self.blank_rows:,} blank {'row was' if self.blank_rows == 1 else 'rows were'} left out")
        ended_now = self.rows - self.pending - self.done_before
        if ended_now > 0 and self.elapsed > 0:
            parts.append(f"{ended_now / self.elapsed:,.1f} rows/s over {self.elapsed:,.1f} s")
        if self.usage.total_tokens:
            parts.append(f"{self.usage.total_tokens:,} tokens")
        if self.cost is not None:
            parts.append(dollars(self.cost))
        if self.unpriced:
            parts.append(self.unpriced)
        return "; ".join(parts)


def _advice_of(cause: str) -> str:
    error_class = getattr(errors, cause, None)
    return error_class.advice if isinstance(error_class, type) and issubclass(error_class, ChatPoolError) else ""


RetryFailed = Union[bool, str, Iterable[str]]
BatchProgress = Union[Progress, Callable[[Mapping[str, Any]], object]]
"""``progress=`` of a batch run: that of every run, or a function that takes the status of the run."""

_SEED = 0  # fixed: the same command draws the same rows again


@dataclass(frozen=True)
class Job:
    """The options of a batch run, checked; see :func:`chatpool.batch.run`.

    ``allows_empty`` is the command line's: whether an input without rows is no error.
    """

    retry_failed: RetryFailed = False
    limit: Optional[int] = None
    sample: Optional[int] = None
    dry_run: bool = False
    in_order: bool = False
    skip_bad_lines: bool = False
    progress: BatchProgress = None
    prices: Optional[PricesLike] = None
    processes: int = 1
    answers: AnswerRules = AnswerRules()
    collect_stream: bool = False
    max_pack: Optional[int] = None
    format: str = BATCH
    fields: Optional[Sequence[str]] = None
    raw: bool = False
    journal: Optional[str] = None
    save_to: Optional[str] = None
    lock: Union[bool, FolderLease] = True
    max_failures: MaxFailures = "same"
    run_timeout: Optional[float] = None
    samples: int = 1
    allows_empty: bool = True

    def __post_init__(self) -> None:
        if self.run_timeout is not None:
            positive_seconds("run_timeout", self.run_timeout)
        for name in ("limit", "sample", "processes", "max_pack", "samples"):
            if getattr(self, name) is not None or name in ("processes", "samples"):
                positive_int(name, getattr(self, name))
        if not isinstance(self.collect_stream, bool):
            raise TypeError(f"collect_stream must be True or False, got {self.collect_stream!r}")
        if self.limit is not None and self.sample is not None:
            raise ConfigurationError("give limit or sample, not both")
        for name, value in (("raw", self.raw), ("lock", self.lease is not None or self.lock)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        if self.fields is not None:
            object.__setattr__(self, "fields", self._checked_fields(self.fields))
        self.bill()
        if not callable(self.progress):
            check_progress(self.progress)
        FailureLimit(self.max_failures)

    @property
    def lease(self) -> Optional[FolderLease]:
        """The lease that keeps other processes from the journal; None where that is a lock's work."""
        return self.lock if isinstance(self.lock, FolderLease) else None

    def bill(self) -> Bill:
        """Return a new count of tokens and money, by the prices.

        Raises:
            TypeError, ConfigurationError: the prices have no valid form.
        """
        return Bill(None if self.prices is None else prices_of(self.prices))

    def _checked_fields(self, fields: Any) -> Sequence[str]:
        names = [name.strip() for name in fields.split(",")] if isinstance(fields, str) else list(fields)
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigurationError(f"fields must be names of columns, such as 'id,answer', got {fields!r}")
        duplicate = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if duplicate is not None:
            raise ConfigurationError(f"fields has {duplicate!r} twice: name each column once")
        if not self.is_table:
            raise ConfigurationError(
                "fields chooses the columns of a table; lines of the Batch API have none: write to a .csv, .parquet, "
                ".db or .txt, or choose the format jsonl"
            )
        if self.format == TEXT and len(names) > 1:
            raise ConfigurationError(f"a text has one field a line, got {', '.join(names)}")
        return names

    @property
    def is_table(self) -> bool:
        """True if the output is a table, with the input's columns."""
        return self.format != BATCH

    @property
    def kinds(self) -> FrozenSet[str]:
        """The kinds of failures to run again, in lower case; empty for all."""
        if isinstance(self.retry_failed, bool):
            return frozenset()
        kinds = self.retry_failed.split(",") if isinstance(self.retry_failed, str) else self.retry_failed
        return frozenset(kind.strip().lower() for kind in kinds if kind.strip())

    def wants(self, state: Optional[str], record: Optional[Record]) -> bool:
        """Return True if a row with this last state and record runs in this run."""
        if self.retry_failed is False:
            return state in (None, RETRY)
        if state not in (FAILED, RETRY) or record is None:
            return False
        return not self.kinds or not self.kinds.isdisjoint(_names_of(record.error or {}))


def _names_of(error: Mapping[str, Any]) -> FrozenSet[str]:
    """Return the names of a failure for ``retry_failed``: its class, HTTP status, code and type."""
    names = [error.get(name) for name in ("class", "status_code", "code", "type")]
    return frozenset(str(name).lower() for name in [*names, error_code(error)] if name is not None)


class Selection:
    """The selected rows of an input, by their index among the well-formed ones.

    Args:
        job: its ``limit`` or ``sample`` selects.
        total: how many rows there are; needed for a sample.
    """

    def __init__(self, job: Job, total: Optional[int]) -> None:
        self._limit = job.limit
        self._sample: Optional[FrozenSet[int]] = None
        if job.sample is not None:
            count = total or 0
            self._sample = frozenset(random.Random(_SEED).sample(range(count), min(job.sample, count)))

    def has(self, index: int) -> bool:
        """Return True if the row with this index is selected."""
        return self._sample is None or index in self._sample

    def is_over(self, index: int) -> bool:
        """Return True if neither this index nor a later one is selected."""
        return self._limit is not None and index >= self._limit
