"""The rows of an input, with the requests that are made of them."""

from __future__ import annotations

import contextlib
from array import array
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional

from ..errors import ChatPoolError, ConfigurationError
from ..journal import ASIDE, BACK, GONE, OK, Journal, Record, hash_of, key_of
from ..types import ChatRequest
from ..wire.codec import Encoded, encode
from .job import Job, Selection
from .lines import request_of_list
from .reading import Reading, Row
from .result import BatchResult
from .sources import BLANK, Line, Problem, Source

__all__ = ["Rows", "Work"]


class Work:
    """A row with its whole request.

    Attributes:
        row: the row.
        key, hash: what it is known by in the journal.
        request: what is sent; None where none can be made, because of ``problem``, and for a row that is not wanted.
        wanted: whether it runs in this run, as far as that is known already.
        record: what the journal has of its end in this run.
    """

    __slots__ = ("hash", "key", "problem", "record", "request", "row", "wanted")

    def __init__(
        self,
        row: Row,
        key: int,
        hash_: str,
        request: Optional[ChatRequest],
        problem: Optional[Exception] = None,
        *,
        wanted: bool = True,
    ) -> None:
        self.row = row
        self.key = key
        self.hash = hash_
        self.request = request
        self.problem = problem
        self.wanted = wanted
        self.record: Optional[Record] = None


class Recalled(NamedTuple):
    """What a journal tells of a row.

    Attributes:
        wanted: whether it runs in this run.
        state: how it ended, None where it did not.
        is_stale: whether there is a record of it that is of another request.
    """

    wanted: bool
    state: Optional[str]
    is_stale: bool


# What is kept of that, a byte a row.
_RUNS, _HAS_ENDED, _ANSWERED, _STALE = 1, 2, 4, 8


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
        is_read: whether the input was read to its end.
        columns: the names of the input's columns, as far as it was read: those of its heading, and those of its rows
            where the output is a table.
        known_count: how many rows have ended before, as far as was checked, whatever they asked for.
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
        self._known: Optional[bytearray] = None  # of each row, what the journal told
        self.is_read = False
        self.trouble: Optional[ConfigurationError] = None
        self.columns: Dict[str, None] = source.heading.columns
        self.known_count = 0

    def check(self, journal: Optional[Journal], *, dry: bool = False) -> int:
        """Look at the whole input before anything is sent; returns how many rows are selected.

        What the journal has of other rows, or of other requests, is set aside; what has ended is counted.

        Args:
            journal: what is known of the rows.
            dry: whether nothing is to be written to it.

        Raises:
            ConfigurationError: a line cannot be used, or a custom_id comes twice.
        """
        total = 0
        known = None if journal is None or journal.is_empty else bytearray()
        for row in self._read(journal, tell=True):
            total += 1
            if known is not None and journal is not None:
                found = self.recall(self.work(row), journal, dry=dry)
                bits = (_HAS_ENDED if found.state else 0) | (_ANSWERED if found.state == OK else 0)
                self.known_count += journal.knows(_key(row))
                known.append(bits | (_RUNS if found.wanted else 0) | (_STALE if found.is_stale else 0))
        if self.trouble is not None:
            raise self.trouble
        self._total, self._known = total, known
        if known is not None and journal is not None:
            self._settle_known(journal, known, dry)
        return min(total, self._job.sample or total)

    def _settle_known(self, journal: Journal, known: bytearray, dry: bool) -> None:
        """Count what has ended before, and set aside what is out of date."""
        again, stale = self._job.retry_failed is not False, array("Q")
        selection = Selection(self._job, len(known))
        for place, bits in enumerate(known):
            if again or not selection.has(place):
                continue
            if bits & _HAS_ENDED and not bits & _RUNS:
                self._result.ended_before(bits & _ANSWERED != 0)
            if bits & _STALE:
                stale.append(place)
        if dry:
            return
        self._set_aside_places(journal, stale)
        self.set_aside_removed(journal)

    def _set_aside_places(self, journal: Journal, places: Any) -> None:
        if not places:
            return
        waiting = iter(places)
        following = next(waiting)
        for place, row in enumerate(self._read(None, tell=False)):
            if place == following:
                journal.mark(_key(row), ASIDE)
                following = next(waiting, -1)

    def set_aside_removed(self, journal: Journal) -> None:
        """Set aside the records of rows that have left the input; it has been read to its end."""
        if self._job.limit is None:
            for key in journal.not_met():
                journal.mark(key, ASIDE)
                self._result.removed_rows += 1

    def recall(self, work: Work, journal: Journal, *, dry: bool = False) -> Recalled:
        """What the journal tells of a row.  What it has set aside, or has as version 0.1.0 named it, counts again.

        Args:
            work: the row.
            journal: the journal.
            dry: whether nothing is to be written to it.
        """
        key, hash_, again = work.key, work.hash, self._job.retry_failed is not False
        state, former = journal.state(key, hash_), None
        if state is None:
            former = self._former(work, journal)
            state = None if former is None else former.state
        record = former or (journal.read(key, hash_) if again else None)
        wanted = self._job.wants(state, record)
        is_stale = state is None and journal.has(key)
        if not dry and former is not None:
            row = work.row
            journal.append(former._replace(key=key, hash=hash_, custom_id=row.custom_id, row=row.number))
            if former.key != key and not journal.met(former.key):
                journal.mark(former.key, GONE)
        elif not dry and state is not None and not journal.has(key):
            journal.mark(key, BACK)
        return Recalled(wanted, state, is_stale)

    def _former(self, work: Work, journal: Journal) -> Optional[Record]:
        """The record that version 0.1.0 has written of a row that it called by its line, or read in another way."""
        row = work.row
        keys = [work.key]
        if not row.is_named and row.line.end != row.number:
            keys.append(key_of(f"row-{row.line.end}"))
        hashes = [work.hash]
        if row.former is not None:
            hashes.append(self.work(row._replace(request=row.former, former=None)).hash)
        for key in keys:
            for hash_ in hashes:
                record = journal.read(key, hash_) if journal.state(key, hash_) is not None else None
                if record is not None and (hash_ == work.hash or record.state == OK):
                    return record
        return None

    def works(self) -> Iterator[Work]:
        """The selected rows; ends early, with :attr:`trouble` set, at a line that cannot be used."""
        selection, known = Selection(self._job, self._total), self._known or b""
        for place, row in enumerate(self._read(None, tell=self._total is None)):
            if not selection.has(place):
                continue
            if place < len(known) and not known[place] & _RUNS:
                yield Work(row, _key(row), "", None, wanted=False)
            else:
                yield self.work(row)

    def place_of(self, row: Row) -> str:
        """Where a row is, for a person."""
        return f"{self.source.unit} {row.line.place}"

    def _read(self, journal: Optional[Journal], *, tell: bool) -> Iterator[Row]:
        """The rows up to the limit; with ``journal`` each custom_id is noted there."""
        selection, place, started = Selection(Job(limit=self._job.limit), None), 0, False
        for line in self.source:
            if selection.is_over(place):
                return
            if line.value is BLANK:
                self._result.blank_rows += tell
                continue
            if not started and not isinstance(line.value, Problem):
                self._reading.recognise(line)
                self._result.kind, started = self._reading.kind, True
                self._recognised()
            row = self._row(line, tell)
            if row is not None and journal is not None and not journal.claim(_key(row)):
                self.trouble = self.twice(row)
            if self.trouble is not None:
                return
            if row is not None:
                place += 1
                yield row
        self.is_read = True

    def twice(self, row: Row) -> ConfigurationError:
        """The error of a name that comes twice."""
        return ConfigurationError(
            f"{self.place_of(row)} of {self.source.name}: the custom_id {row.custom_id!r} was there before; "
            "each row needs its own"
        )

    def every(self) -> Iterator[Row]:
        """Every row of an input that was read before, selected or not."""
        for line in self.source:
            if line.value is BLANK:
                continue
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
                self._result.bad_line(line.place, str(error))
            if not self._job.skip_bad_lines:
                self.trouble = ConfigurationError(
                    f"{self.source.unit} {line.place} of {self.source.name} cannot be used: {error}; correct it, or "
                    f"leave such {self.source.unit}s out (skip_bad_lines, --skip-bad-lines)"
                )
            return None

    def work(self, row: Row) -> Work:
        """A row with its whole request, or with what is wrong with it."""
        key = _key(row)
        if row.request is None:
            return Work(row, key, hash_of("", str(row.problem).encode()), None, row.problem)
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
    if isinstance(value, list):
        value = request_of_list(value)
    return {str(name): part for name, part in value.items()} if isinstance(value, dict) else {"text": value}


def _key(row: Row) -> int:
    return key_of(row.custom_id)
