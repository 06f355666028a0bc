"""What a batch run did.

What is to be done with an input: which of its rows run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from .._client.batch_support import FailureLimit, MaxFailures
from .._journal import FAILED, RETRY, Record
from .._observe.progress import Progress
from .._structured.validation import AnswerRules
from ..config import positive_int
from ..errors import ChatPoolError, ConfigurationError
from ..prices import Bill, PricesLike, dollars, prices_of
from ..types import Usage
from .batch_format import error_code
from .output_formats import BATCH, STDOUT, TEXT

__all__ = ["BatchResult", "Job", "RetryFailed", "Selection"]


@dataclass
class BatchResult:
    """What a batch run did.

    Attributes:
        rows: rows that were selected; of standard input, as far as it was read.
        succeeded: how many of them have an answer, from this run or an earlier one.
        failed: how many are in the file of errors.
        done_before: how many had ended in an earlier run and were not sent.
        changed: how many had an answer to another request (other words, another model or parameter), and were sent and
            paid again.
        pending: how many were not sent, or not to their end; the next run of the same call sends them.
        bad_lines: (number, reason) of the first lines that could not be used.
        bad_line_count: how many there were.
        blank_rows: rows of a table that are nothing but separators; they are no rows, and not sent.
        removed_rows: rows of earlier runs that have left the input since the last one; they are left out of the output,
            and what the journal has of them counts again when they come back.
        usage: tokens of this run's answers.
        cost: dollars that this run's answers cost, as their servers state it or else by ``prices``; None where there
            is neither. Of a dry run: what it costs to have the prompts read.
        unpriced: which answers have no price, for a person; "" where ``cost`` is of all.
        estimated_tokens: of a dry run: tokens of the prompts to be sent, as a pool reckons with them before it has
            seen an answer.
        prices: dollars per million tokens, as they were given.
        elapsed: seconds the run took.
        kind: what the input was recognised as.
        fatal: the error that ended the run, None if it ran to its end.
        signal: the signal that ended it, None without one.
        causes: failures of this run by cause.
        output: file of the answers.
        errors: file of the errors; None where they stand in the table of the answers, or went to standard output.
        journal: file of all outcomes; None if nobody has named one for answers that went to standard output.
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

    def bad_line(self, number: int, reason: str) -> None:
        """Note a line that cannot be used."""
        self.bad_line_count += 1
        if len(self.bad_lines) < 20:
            self.bad_lines.append((number, reason))

    def ended_before(self, succeeded: bool) -> None:
        """Note a row that ended in an earlier run and is not sent."""
        self.done_before += 1
        self.succeeded += succeeded
        self.failed += not succeeded

    def count(self, bill: Bill) -> None:
        """Take over what was counted."""
        self.usage, self.cost, self.unpriced = bill.usage, bill.cost, bill.note()

    @property
    def _where(self) -> str:
        if self.errors is not None:
            return f", see {self.errors}"
        return "" if self.output in (None, STDOUT) else f", see the column 'error' of {self.output}"

    def summary(self) -> str:
        """The counts, for a person, on one line."""
        parts = [f"{self.succeeded:,} of {self.rows:,} rows answered"]
        if self.failed:
            causes = sorted(self.causes.items(), key=lambda pair: -pair[1])
            shown = ", ".join(f"{count:,} x {name}" for name, count in causes[:5])
            parts.append(f"{self.failed:,} failed" + (f" ({shown})" if shown else "") + self._where)
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
        here = self.rows - self.pending - self.done_before
        if here > 0 and self.elapsed > 0:
            parts.append(f"{here / self.elapsed:,.1f} rows/s over {self.elapsed:,.1f} s")
        if self.usage.total_tokens:
            parts.append(f"{self.usage.total_tokens:,} tokens")
        if self.cost is not None:
            parts.append(dollars(self.cost))
        if self.unpriced:
            parts.append(self.unpriced)
        return "; ".join(parts)


RetryFailed = Union[bool, str, Iterable[str]]

_SEED = 0  # the same rows are drawn again by the same command


@dataclass(frozen=True)
class Job:
    """The options of a batch run, checked; see :func:`chatpool.batch.run`."""

    retry_failed: RetryFailed = False
    limit: Optional[int] = None
    sample: Optional[int] = None
    dry_run: bool = False
    in_order: bool = False
    skip_bad_lines: bool = False
    progress: Progress = None
    prices: Optional[PricesLike] = None
    processes: int = 1
    answers: AnswerRules = AnswerRules()
    collect_stream: bool = False
    max_pack: Optional[int] = None
    format: str = BATCH
    fields: Optional[Sequence[str]] = None
    raw: bool = False
    journal: Optional[str] = None
    lock: bool = True
    max_failures: MaxFailures = "same"

    def __post_init__(self) -> None:
        for name in ("limit", "sample", "processes", "max_pack"):
            if getattr(self, name) is not None or name == "processes":
                positive_int(name, getattr(self, name))
        if not isinstance(self.collect_stream, bool):
            raise TypeError(f"collect_stream must be True or False, got {self.collect_stream!r}")
        if self.limit is not None and self.sample is not None:
            raise ConfigurationError("give limit or sample, not both")
        for name in ("raw", "lock"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.fields is not None:
            object.__setattr__(self, "fields", self._checked_fields(self.fields))
        self.bill()
        FailureLimit(self.max_failures)

    def bill(self) -> Bill:
        """A new count of tokens and money, by the prices.

        Raises:
            TypeError, ConfigurationError: they are none.
        """
        return Bill(None if self.prices is None else prices_of(self.prices))

    def _checked_fields(self, given: Any) -> Sequence[str]:
        fields = given.split(",") if isinstance(given, str) else list(given)
        names = [name.strip() if isinstance(given, str) else name for name in fields]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigurationError(f"fields must be names of columns, such as 'id,answer', got {given!r}")
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise ConfigurationError(f"fields has {twice!r} twice: name each column once")
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
        """Whether the output is a table, with the input's columns."""
        return self.format != BATCH

    @property
    def kinds(self) -> FrozenSet[str]:
        """The kinds of failures to run again, in lower case; empty for all."""
        given = self.retry_failed
        if isinstance(given, bool):
            return frozenset()
        words = given.split(",") if isinstance(given, str) else given
        return frozenset(word.strip().lower() for word in words if word.strip())

    def wants(self, state: Optional[str], record: Optional[Record]) -> bool:
        """Whether a row that ended so, the last time, runs in this run."""
        if self.retry_failed is False:
            return state in (None, RETRY)
        if state not in (FAILED, RETRY) or record is None:
            return False
        return not self.kinds or not self.kinds.isdisjoint(_words(record.error or {}))


def _words(error: Mapping[str, Any]) -> FrozenSet[str]:
    """What a failure may be called: its class, HTTP status, code or type."""
    names = [error.get(name) for name in ("class", "status_code", "code", "type")]
    return frozenset(str(name).lower() for name in [*names, error_code(error)] if name is not None)


class Selection:
    """Which rows of the input are selected, by their place among the well-formed ones.

    Args:
        job: says ``limit`` or ``sample``.
        total: how many there are; needed for a sample.
    """

    def __init__(self, job: Job, total: Optional[int]) -> None:
        self._limit = job.limit
        self._sample: Optional[FrozenSet[int]] = None
        if job.sample is not None:
            count = total or 0
            self._sample = frozenset(random.Random(_SEED).sample(range(count), min(job.sample, count)))

    def has(self, place: int) -> bool:
        """Whether the row at this place is selected."""
        return self._sample is None or place in self._sample

    def is_over(self, place: int) -> bool:
        """Whether neither this place nor a later one is selected."""
        return self._limit is not None and place >= self._limit
