"""The rows of an input, with the requests that are made of them."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, Mapping, Optional

from ..errors import ChatPoolError, ConfigurationError
from ..journal import Journal, Record, hash_of, key_of
from ..types import ChatRequest
from ..wire.codec import Encoded, encode
from .job import Job, Selection
from .lines import METADATA
from .reading import Reading, Row
from .result import BatchResult
from .sources import Line, Source

__all__ = ["Rows", "Work"]


class Work:
    """A row with its whole request.

    Attributes:
        row: the row.
        key, hash: what it is known by in the journal.
        request: what is sent; None where none can be made, because of ``problem``.
        record: what the journal has of its end in this run.
    """

    __slots__ = ("hash", "key", "problem", "record", "request", "row")

    def __init__(
        self, row: Row, key: int, hash_: str, request: Optional[ChatRequest], problem: Optional[Exception] = None
    ) -> None:
        self.row = row
        self.key = key
        self.hash = hash_
        self.request = request
        self.problem = problem
        self.record: Optional[Record] = None


class Rows:
    """The selected rows of an input, read as often as it is asked for (once, of standard input).

    Args:
        source: the input.
        reading: how its lines are read.
        job: which rows.
        make: fills in what a request lacks.
        result: bad lines are noted there, and what the input is.
        recognised: called when that is known.

    Attributes:
        source: the input.
        trouble: the line that ended the reading, as an error.
        columns: the names of the input's columns, as far as it was read, where the output is a table.
        known: how many rows have ended before, as far as was checked, whatever they asked for.
    """

    def __init__(
        self,
        source: Source,
        reading: Reading,
        job: Job,
        make: Callable[[Any], ChatRequest],
        result: BatchResult,
        recognised: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self._reading = reading
        self._job = job
        self._make = make
        self._result = result
        self._recognised = recognised
        self._total: Optional[int] = None
        self.trouble: Optional[ConfigurationError] = None
        self.columns: Dict[str, None] = {}
        self.known = 0

    def check(self, journal: Optional[Journal]) -> int:
        """Look at the whole input before anything is sent; returns how many rows are selected.

        Raises:
            ConfigurationError: a line cannot be used, or a custom_id comes twice.
        """
        total = 0
        for row in self._read(journal, tell=True):
            self.known += journal is not None and journal.knows(_key(row))
            total += 1
        if self.trouble is not None:
            raise self.trouble
        self._total = total
        return min(total, self._job.sample or total)

    def works(self) -> Iterator[Work]:
        """The selected rows; ends early, with :attr:`trouble` set, at a line that cannot be used."""
        selection = Selection(self._job, self._total)
        for place, row in enumerate(self._read(None, tell=self._total is None)):
            if selection.has(place):
                yield self.work(row)

    def _read(self, journal: Optional[Journal], *, tell: bool) -> Iterator[Row]:
        """The rows up to the limit; with ``journal`` each custom_id is noted there."""
        selection, place, started = Selection(Job(limit=self._job.limit), None), 0, False
        for line in self.source:
            if selection.is_over(place):
                return
            if not started:
                self._reading.recognise(line)
                self._result.kind, started = self._reading.kind, True
                self._recognised()
            row = self._row(line, tell)
            if row is not None and journal is not None and not journal.claim(_key(row)):
                self.trouble = ConfigurationError(
                    f"line {row.number} of {self.source.name}: the custom_id {row.custom_id!r} was there before; "
                    "each row needs its own"
                )
            if self.trouble is not None:
                return
            if row is not None:
                place += 1
                yield row

    def every(self) -> Iterator[Row]:
        """Every row of an input that was read before, selected or not."""
        for line in self.source:
            with contextlib.suppress(ValueError):
                yield self._in_columns(self._reading.row(line), line)

    def _in_columns(self, row: Row, line: Line) -> Row:
        """The row with what the input has of it, where that goes into a table."""
        if not self._job.is_table:
            return row
        row = row._replace(fields=_fields_of(line.value))
        self.columns.update(dict.fromkeys(row.fields or ()))
        return row

    def _row(self, line: Line, tell: bool) -> Optional[Row]:
        try:
            return self._in_columns(self._reading.row(line), line)
        except ValueError as error:
            if tell:
                self._result.bad_line(line.number, str(error))
            if not self._job.skip_bad_lines:
                self.trouble = ConfigurationError(
                    f"line {line.number} of {self.source.name} cannot be used: {error}; correct it, or leave such "
                    "lines out (skip_bad_lines, --skip-bad-lines)"
                )
            return None

    def work(self, row: Row) -> Work:
        """A row with its whole request, or with what is wrong with it."""
        key = _key(row)
        try:
            request = self._make(row.request)
            payload = encode(request.body)
            request = ChatRequest(Encoded(request.body, payload), request.path)  # it is needed again, to be sent
            return Work(row, key, hash_of(request.path, payload), request)
        except (TypeError, ValueError, ChatPoolError) as error:
            body = repr(row.request.body).encode("utf-8", "surrogatepass")
            return Work(row, key, hash_of("", body), None, error)


def _fields_of(value: Any) -> Mapping[str, Any]:
    """The columns that a line of input has; one of text has the column ``text``, as for templates."""
    if isinstance(value, list):  # the cookbook script's
        value = {**value[0], METADATA: value[2]} if len(value) == 3 else value[0]
    return {str(name): part for name, part in value.items()} if isinstance(value, dict) else {"text": value}


def _key(row: Row) -> int:
    return key_of(row.custom_id)
