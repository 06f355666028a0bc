"""The rows of a run: :class:`Rows` selects them, completes their requests with the pool's defaults, and looks them up
in the journal.
"""

from __future__ import annotations

import contextlib
from array import array
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional

from .._client.batch_support import Encoded, identity_of, payload_of, refuse_unsampled, samples_mark
from .._journal import OK, RENAMED, RESTORED, SET_ASIDE, Journal, Record, hash_of, key_of
from ..errors import ChatPoolError, ConfigurationError
from ..types import ChatRequest
from .input_files import BLANK, InputLine, InputProblem, Source
from .input_format import InputFormat, Row
from .job import BatchResult, Job, Selection
from .jsonl import request_of_list
from .sound_files import SaveFolder

__all__ = ["RowRequest", "Rows"]


class RowRequest:
    """A row with its whole request.

    Attributes:
        row: the row.
        key, hash: its identity in the journal.
        request: the request; None if none can be made, because of ``problem``, and for a row that is not wanted.
        wanted: whether it runs in this run, as far as that is known already.
        record: its record in the journal, once it has ended in this run.
        occurrence: its number among the rows of the input with the same request, from 0; counted for a cache only.
    """

    __slots__ = ("hash", "key", "occurrence", "problem", "record", "request", "row", "wanted")

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
        self.occurrence = 0


class Recalled(NamedTuple):
    """The journal's knowledge of a row.

    Attributes:
        wanted: whether the row runs in this run.
        state: the state in which it ended, None if it did not.
        is_stale: whether its record is one of another request.
    """

    wanted: bool
    state: Optional[str]
    is_stale: bool


# The same, in one byte per row.
_RUNS, _HAS_ENDED, _ANSWERED, _STALE = 1, 2, 4, 8


class Rows:
    """The selected rows of an input; every iteration reads it again (standard input is read once).

    Args:
        source: the input.
        input_format: makes rows of its lines.
        job: selects rows.
        make_request: completes a request with the pool's defaults.
        result: takes bad lines, and the detected format.
        on_format_detected: called when ``result.kind`` is known.

    Attributes:
        source: the input.
        make_request: as it was given.
        input_error: the error of the line that ended the reading.
        is_read: whether the input was read to its end.
        columns: the names of the input's columns, as far as it was read: those of its heading, and those of its rows
            if the output is a table.
        matched_count: how many rows the journal has, as far as was checked, with this or another request.
    """

    def __init__(
        self,
        source: Source,
        input_format: InputFormat,
        job: Job,
        make_request: Callable[[Any], ChatRequest],
        result: BatchResult,
        on_format_detected: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self._input_format = input_format
        self._job = job
        self.make_request = make_request
        self._result = result
        self._on_format_detected = on_format_detected
        self._save_folder = None if job.save_to is None else SaveFolder(job.save_to)
        self._total: Optional[int] = None
        self._bits_of_rows: Optional[bytearray] = None  # what the journal knows of each row
        self.is_read = False
        self.input_error: Optional[ConfigurationError] = None
        self.columns: Dict[str, None] = source.heading.columns
        self.matched_count = 0

    def check(self, journal: Optional[Journal], *, dry_run: bool = False) -> int:
        """Check the whole input before anything is sent, and return how many rows are selected.

        Records of other rows, or of other requests, are set aside; rows that have ended before are counted.

        Args:
            journal: knows outcomes of earlier runs.
            dry_run: whether nothing may be written to it.

        Raises:
            ConfigurationError: a line cannot be used, or a custom_id comes twice.
        """
        total = 0
        is_first_run = journal is None or (journal.is_empty and self._job.retry_failed is False)
        bits_of_rows = None if is_first_run else bytearray()
        for row in self.read(journal, reports=True):
            total += 1
            if bits_of_rows is not None and journal is not None:
                recalled = self.recall(self.row_request(row), journal, dry_run=dry_run)
                bits = (_HAS_ENDED if recalled.state else 0) | (_ANSWERED if recalled.state == OK else 0)
                self.matched_count += journal.has_ended(_key(row))
                bits_of_rows.append(bits | (_RUNS if recalled.wanted else 0) | (_STALE if recalled.is_stale else 0))
        if self.input_error is not None:
            raise self.input_error
        self._total, self._bits_of_rows = total, bits_of_rows
        if bits_of_rows is not None and journal is not None:
            self._apply_recalled(journal, bits_of_rows, dry_run)
        return min(total, self._job.sample or total)

    def _apply_recalled(self, journal: Journal, bits_of_rows: bytearray, dry_run: bool) -> None:
        """Count rows that have ended before, and set records of other requests aside."""
        retries_failed, stale = self._job.retry_failed is not False, array("Q")
        selection = Selection(self._job, len(bits_of_rows))
        for index, bits in enumerate(bits_of_rows):
            if retries_failed or not selection.has(index):
                continue
            if bits & _HAS_ENDED and not bits & _RUNS:
                self._result.ended_before(bits & _ANSWERED != 0)
            if bits & _STALE:
                stale.append(index)
        if dry_run:
            return
        self._set_aside_stale(journal, stale)
        self.set_aside_removed(journal)

    def _set_aside_stale(self, journal: Journal, indices: Any) -> None:
        if not indices:
            return
        remaining = iter(indices)
        next_index = next(remaining)
        for index, row in enumerate(self.read(None, reports=False)):
            if index == next_index:
                journal.mark(_key(row), SET_ASIDE)
                next_index = next(remaining, -1)

    def set_aside_removed(self, journal: Journal) -> None:
        """Set aside the records of rows that have left the input; it has been read to its end."""
        if self._job.limit is None:
            for key in journal.unseen():
                journal.mark(key, SET_ASIDE)
                self._result.removed_rows += 1

    def recall(self, row_request: RowRequest, journal: Journal, *, dry_run: bool = False) -> Recalled:
        """Look a row up in the journal.  A record that was set aside, or is one of version 0.1.0, counts again.

        Args:
            row_request: the row.
            journal: the journal.
            dry_run: whether nothing may be written to it.
        """
        key, hash_, retries_failed = row_request.key, row_request.hash, self._job.retry_failed is not False
        state, legacy = journal.state(key, hash_), None
        if state == OK and self._has_lost_file(row_request, journal):
            state = None
        elif state is None:
            legacy = self._legacy_record(row_request, journal)
            state = None if legacy is None else legacy.state
        record = legacy or (journal.read(key, hash_) if retries_failed else None)
        wanted = self._job.wants(state, record)
        is_stale = state is None and journal.has(key)
        if not dry_run and legacy is not None:
            row = row_request.row
            journal.append(legacy._replace(key=key, hash=hash_, custom_id=row.custom_id, row=row.number))
            if legacy.key != key and not journal.seen(legacy.key):
                journal.mark(legacy.key, RENAMED)
        elif not dry_run and state is not None and not journal.has(key):
            journal.mark(key, RESTORED)
        return Recalled(wanted, state, is_stale)

    def _has_lost_file(self, row_request: RowRequest, journal: Journal) -> bool:
        """Return whether the file that a row was answered with is gone."""
        if self._save_folder is None or row_request.request is None:
            return False
        record = journal.read(row_request.key, row_request.hash)
        return not self._save_folder.is_there(row_request.request, record)

    def _legacy_record(self, row_request: RowRequest, journal: Journal) -> Optional[Record]:
        """Return the record of a row that version 0.1.0 named by its line, or made another request of."""
        row = row_request.row
        keys = [row_request.key]
        if not row.is_named and row.line.end != row.number:
            keys.append(key_of(f"row-{row.line.end}"))
        hashes = [row_request.hash]
        if row.legacy is not None:
            hashes.append(self.row_request(row._replace(request=row.legacy, legacy=None)).hash)
        for key in keys:
            for hash_ in hashes:
                record = journal.read(key, hash_) if journal.state(key, hash_) is not None else None
                if record is not None and (hash_ == row_request.hash or record.state == OK):
                    return record
        return None

    def row_requests(self) -> Iterator[RowRequest]:
        """Yield the selected rows; end early, with :attr:`input_error` set, at a line that cannot be used."""
        selection, bits_of_rows = Selection(self._job, self._total), self._bits_of_rows or b""
        for index, row in enumerate(self.read(None, reports=self._total is None)):
            if not selection.has(index):
                continue
            if index < len(bits_of_rows) and not bits_of_rows[index] & _RUNS:
                yield RowRequest(row, _key(row), "", None, wanted=False)
            else:
                yield self.row_request(row)

    def location_of(self, row: Row) -> str:
        """Return the place of a row in the input, for a person."""
        return f"{self.source.unit} {row.line.place}"

    def read(self, journal: Optional[Journal], *, reports: bool) -> Iterator[Row]:
        """Yield the rows up to the limit; end early, with :attr:`input_error` set, at a line that cannot be used.

        Args:
            journal: takes each custom_id, and knows whether it was there before.
            reports: whether bad and blank lines are counted.
        """
        selection, index, is_detected = Selection(Job(limit=self._job.limit), None), 0, False
        for line in self.source:
            if selection.is_over(index):
                return
            if line.value is BLANK:
                self._result.blank_rows += reports
                continue
            if not is_detected and not isinstance(line.value, InputProblem):
                self._input_format.detect_format(line)
                self._result.kind, is_detected = self._input_format.kind, True
                self._on_format_detected()
            row = self._row(line, reports)
            if row is not None and journal is not None and not journal.register(_key(row)):
                self.input_error = self.duplicate_error(row)
            if self.input_error is not None:
                return
            if row is not None:
                index += 1
                yield row
        self.is_read = True

    def duplicate_error(self, row: Row) -> ConfigurationError:
        """Return the error of a custom_id that comes twice."""
        return ConfigurationError(
            f"{self.location_of(row)} of {self.source.name}: the custom_id {row.custom_id!r} was there before; "
            "each row needs its own"
        )

    def all_rows(self) -> Iterator[Row]:
        """Yield every row of an input that was read before, selected or not."""
        for line in self.source:
            if line.value is BLANK:
                continue
            with contextlib.suppress(ValueError):
                yield self._in_columns(self._input_format.row(line), line)

    def _in_columns(self, row: Row, line: InputLine) -> Row:
        """Return the row with its columns, if they go into a table."""
        if not self._job.is_table:
            return row
        row = row._replace(fields=_fields_of(line.value))
        self.columns.update(dict.fromkeys(row.fields or ()))
        return row

    def _row(self, line: InputLine, reports: bool) -> Optional[Row]:
        try:
            return self._in_columns(self._input_format.row(line), line)
        except ValueError as error:
            if reports:
                self._result.bad_line(line.place, str(error))
            if not self._job.skip_bad_lines:
                self.input_error = ConfigurationError(
                    f"{self.source.unit} {line.place} of {self.source.name} cannot be used: {error}; correct it, or "
                    f"leave such {self.source.unit}s out (skip_bad_lines, --skip-bad-lines)"
                )
            return None

    def row_request(self, row: Row) -> RowRequest:
        """Return a row with its whole request, or with the reason why there is none."""
        key = _key(row)
        if row.request is None:
            return RowRequest(row, key, hash_of("", str(row.problem).encode()), None, row.problem)
        try:
            request, samples = self.make_request(row.request), self._job.samples
            if samples > 1:
                refuse_unsampled(request)
            if self._save_folder is not None:
                request = self._save_folder.saved(request, row.custom_id)
            payload = payload_of(request)
            encoded = Encoded(request.body, payload)  # it is needed again, to be sent
            request = ChatRequest(encoded, request.path, files=request.files, response=request.response)
            return RowRequest(row, key, hash_of(request.path + samples_mark(samples), identity_of(payload)), request)
        except (TypeError, ValueError, ChatPoolError) as error:
            identity = repr(row.request.body) + (repr(row.request.files) if row.request.files else "")
            return RowRequest(row, key, hash_of("", identity.encode("utf-8", "surrogatepass")), None, error)


def _fields_of(value: Any) -> Mapping[str, Any]:
    """Return the columns of a line of input; a line of text has the column ``text``, as for templates."""
    if isinstance(value, list):
        value = request_of_list(value)
    return {str(name): part for name, part in value.items()} if isinstance(value, dict) else {"text": value}


def _key(row: Row) -> int:
    return key_of(row.custom_id)
