"""What a batch run did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

from ..errors import ChatPoolError
from ..prices import Bill, PricesLike, dollars
from ..types import Usage
from .formats import STDOUT

__all__ = ["BatchResult"]


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
