"""A table of the rows of an input with their answers."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pickle
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Type

from .._files import atomic_replace
from .._journal import OK, Journal, Record, decode_value
from .._wire.media import is_sound_request
from .._wire.operations import SPEECH, operation_of
from .._wire.response import UnusableAnswer, decode_response, usage_of
from .._wire.sampling import separate_answers
from ..errors import ConfigurationError
from ..types import ChatCompletion, ChatRequest
from .job import Job
from .jsonl import error_line
from .output_files import Outputs, Paths, refuse_foreign_files, stdout
from .output_formats import SQLITE, STDOUT, TEXT, Column, Spool, free_name, refuse_other_tables, write_table
from .rows import RowRequest, Rows

__all__ = ["TableOutputs", "check_fields"]

ANSWER, ERROR, TOKENS = "answer", "error", "tokens"
_DEFAULT_FACTS = (ERROR, TOKENS)
_FACTS = (
    "id",
    "row",
    ANSWER,
    ERROR,
    TOKENS,
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "model",
    "finish_reason",
    "status",
    "attempts",
    "elapsed",
    "fallback",
    "request_id",
)

_FIELDS_OF_INPUT, _ANSWERS, _FACTS_OF_RUN = range(3)  # the groups of a row

_LAST_ATTEMPT = 1 << 30  # a number of attempts after which no answer is asked for again


def check_fields(job: Job, columns: Mapping[str, None]) -> None:
    """Check the names of the columns to write, before anything is sent.

    Args:
        job: names them.
        columns: the columns of the input.

    Raises:
        ConfigurationError: there is no column of this name.
    """
    expected = _expected(job)
    if job.fields is None or expected is None:
        return
    known = {column.name: None for column in _columns([columns, expected, dict.fromkeys(_FACTS)])}
    missing = [name for name in job.fields if name not in known]
    if missing:
        raise ConfigurationError(f"there is no field {missing[0]!r} to write; there are: {', '.join(known)}")


def _expected(job: Job) -> Optional[Dict[str, None]]:
    """Return the columns that answers will have, None if they are not known before there are answers."""
    parse = job.answers.parse
    if parse is None:
        return {ANSWER: None}
    properties = parse.get("properties") if isinstance(parse, Mapping) else None
    return dict.fromkeys(map(str, properties)) if isinstance(properties, Mapping) else None


def _columns(names: Sequence[Mapping[str, None]]) -> List[Column]:
    """Return all columns of a table; names of the input stay as they are, others get a number if they are taken."""
    fields, answers, facts = names
    taken: Set[str] = {name.lower() for name in fields}
    columns = [Column(name, _FIELDS_OF_INPUT, name) for name in fields]
    default = [Column(free_name(name, taken), _FACTS_OF_RUN, name) for name in _DEFAULT_FACTS]
    columns += [Column(free_name(name, taken), _ANSWERS, name) for name in answers]
    others = [name for name in facts if name not in _DEFAULT_FACTS and name not in answers]
    return [*columns, *default, *(Column(free_name(name, taken), _FACTS_OF_RUN, name) for name in others)]


class _StoredRow(NamedTuple):
    """The parts of a row that a table needs; those of standard input are stored, as it cannot be read again."""

    fields: Mapping[str, Any]
    custom_id: str
    number: int
    key: int
    hash: str
    request: Optional[ChatRequest]

    @classmethod
    def of(cls, row_request: RowRequest) -> _StoredRow:
        row, request = row_request.row, row_request.request
        request_without_encoding = request and ChatRequest(dict(request.body), request.path)  # without its encoded form
        return cls(
            row.fields or {}, row.custom_id, row.number, row_request.key, row_request.hash, request_without_encoding
        )


class _Cells(NamedTuple):
    """One answer as a cell, and as the cells of its fields."""

    answer: Any
    fields: Dict[str, Any]


class TableOutputs(Outputs):
    """A table of the rows that have ended, in the order of the input; it is written at the end of every run.

    Args:
        paths: the files.
        journal: the records of all runs.
        rows: the rows of the input.
        job: names the columns, and the form of answers.

    Raises:
        ConfigurationError: there is an output, and the journal has nothing of it; or a database has other tables.
    """

    def __init__(self, paths: Paths, journal: Journal, rows: Rows, job: Job) -> None:
        if journal.is_empty:
            refuse_foreign_files(paths)
        elif paths.format == SQLITE:
            refuse_other_tables(paths.answers)
        self._paths = paths
        self._journal = journal
        self._rows = rows
        self._job = job
        self._fact_names = _FACTS if job.fields is not None or paths.format == TEXT else _DEFAULT_FACTS
        self._review = job.answers.reviewer() if job.answers.parse is not None else None
        # Temporary files go beside the output: there is space, and the folder's permissions fit.
        self._folder = None if paths.answers == STDOUT else os.path.dirname(os.path.abspath(paths.answers))
        self._stored_rows: Optional[IO[bytes]] = None
        try:  # also for a file, where it is not needed: an error comes now, and not when all is paid
            self._stored_rows = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(f"cannot write {paths.answers}: {reason}; choose another output") from error
        if not rows.source.is_stream:
            self._stored_rows.close()
            self._stored_rows = None

    def on_row(self, row_request: RowRequest) -> None:
        if self._stored_rows is not None:
            pickle.dump(_StoredRow.of(row_request), self._stored_rows)

    def finish(self, *, whole: bool = True) -> None:
        del whole  # a table is written in any case: the rows that have ended are of use
        with contextlib.ExitStack() as stack:
            spool = Spool(3, self._folder)
            stack.callback(spool.close)
            errors = None if self._paths.errors is None else stack.enter_context(atomic_replace(self._paths.errors))
            for stored_row, record in self._ended_rows():
                spool.add(stored_row.fields, *self._answer_and_facts(stored_row, record))
                if errors is not None and record.state != OK:
                    errors.write(error_line(record))
            columns = self._chosen_columns(spool)
            file = stdout() if self._folder is None else stack.enter_context(atomic_replace(self._paths.answers))
            write_table(file, self._paths.answers, self._paths.format, spool, columns, raw=self._job.raw)
            file.flush()

    def _ended_rows(self) -> Iterator[Tuple[_StoredRow, Record]]:
        """Yield the rows of the input that have ended, selected in this run or not."""
        for stored_row in self._all_rows():
            record = self._journal.read(stored_row.key, stored_row.hash)
            if record is not None:
                yield stored_row, record

    def _all_rows(self) -> Iterator[_StoredRow]:
        if self._stored_rows is None:
            nothing_else = self._journal.was_empty and self._job.limit is not None
            for row in itertools.islice(self._rows.all_rows(), self._job.limit if nothing_else else None):
                yield _StoredRow.of(self._rows.row_request(row))
            return
        self._stored_rows.seek(0)
        with contextlib.suppress(EOFError):
            while True:
                yield pickle.load(self._stored_rows)  # noqa: S301 - our own file, without a name
        self._stored_rows.seek(0, os.SEEK_END)

    def _chosen_columns(self, spool: Spool) -> List[Column]:
        """Return the columns to write."""
        names = [*spool.names]
        names[_FIELDS_OF_INPUT] = {**self._rows.columns, **names[_FIELDS_OF_INPUT]}
        expected = _expected(self._job)
        if expected is not None:
            names[_ANSWERS] = {**expected, **names[_ANSWERS]}
        all_columns = _columns([*names[:2], dict.fromkeys(_FACTS)])
        by_name = {column.name: column for column in all_columns}
        if self._job.fields is not None:  # a column that no answer has had is empty
            return [by_name.get(name) or Column(name, _ANSWERS, name) for name in self._job.fields]
        if self._paths.format == TEXT:
            return [Column(ANSWER, _FACTS_OF_RUN, ANSWER)]
        default = [column for column in all_columns if column.group == _FACTS_OF_RUN and column.key in _DEFAULT_FACTS]
        return [column for column in all_columns if column.group != _FACTS_OF_RUN] + default

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        try:
            if kind is KeyboardInterrupt:  # within a wait for a row of standard input
                with contextlib.suppress(OSError):  # the interruption is raised in any case
                    self.finish()
        finally:
            if self._stored_rows is not None:
                self._stored_rows.close()

    # -- one row ------------------------------------------------------------------------------------------

    def _answer_and_facts(self, stored_row: _StoredRow, record: Record) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """Return the fields of a row's answer, and the facts about it."""
        stored = decode_value(record.value)
        value = stored
        with contextlib.suppress(UnusableAnswer):
            if isinstance(stored, dict) and stored_row.request is not None:
                value = decode_response(stored_row.request, stored, None)
        answers: Dict[str, Any] = {}
        answer = None
        if record.state == OK:
            cells = [self._cells(stored_row, each) for each in self._samples_in(stored_row, value)]
            answer = [cell.answer for cell in cells] if self._job.samples > 1 else cells[0].answer
            answers = _beside([cell.fields for cell in cells]) if self._job.samples > 1 else cells[0].fields
        known = {"id": stored_row.custom_id, "row": stored_row.number, ANSWER: answer}
        facts = {**known, **_facts(record, stored, value, self._job.samples)}
        return answers, {name: facts[name] for name in self._fact_names}

    def _samples_in(self, stored_row: _StoredRow, value: Any) -> List[Any]:
        """Return the answers of a row, as a rule one."""
        if self._job.samples == 1 or not isinstance(value, ChatCompletion):
            return [value]
        return list(separate_answers(stored_row.request or ChatRequest({}), value))

    def _cells(self, stored_row: _StoredRow, value: Any) -> _Cells:
        answer = _answer_in(value, stored_row.request)
        return _Cells(answer, {ANSWER: answer} if self._review is None else self._parsed(stored_row, value, answer))

    def _parsed(self, stored_row: _StoredRow, value: Any, answer: Any) -> Dict[str, Any]:
        """Return the fields of a structured answer; an answer without fields has the column of answers."""
        assert self._review is not None
        parsed = None
        if isinstance(value, ChatCompletion):
            reviewed = self._review(stored_row.request or ChatRequest({}), value, _LAST_ATTEMPT).value
            parsed = reviewed.parsed if isinstance(reviewed, ChatCompletion) else None
        fields = _mapping_of(parsed)
        if fields is not None:
            return {str(name): part for name, part in fields.items()}
        return {ANSWER: answer if parsed is None else parsed}


def _beside(samples: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Return the fields of several answers, each with a list of its values."""
    names = dict.fromkeys(name for fields in samples for name in fields)
    return {name: [fields.get(name) for fields in samples] for name in names}


def _facts(record: Record, stored: Any, value: Any, samples: int) -> Dict[str, Any]:
    usage = record.usage or usage_of(stored)
    last = record.attempts[-1] if record.attempts else None
    error = record.error
    model = stored.get("model") if isinstance(stored, dict) else None
    return {
        ERROR: None if error is None else f"{error.get('class')}: {error.get('message')}",
        TOKENS: None if usage is None else usage.total_tokens,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
        "cached_tokens": None if usage is None else usage.cached_tokens,
        "reasoning_tokens": None if usage is None else usage.reasoning_tokens,
        "model": model,
        "finish_reason": _finish_reasons(value, samples) if isinstance(value, ChatCompletion) else None,
        "status": None if last is None else last.status,
        "attempts": len(record.attempts),
        "fallback": record.fallback,
        "elapsed": record.elapsed,
        "request_id": None if last is None else last.request_id,
    }


def _finish_reasons(value: ChatCompletion, samples: int) -> Any:
    """Return why an answer ended; of several a list."""
    return value.finish_reason if samples == 1 else [choice.finish_reason for choice in value.choices]


def _answer_in(value: Any, request: Optional[ChatRequest]) -> Any:
    """Return an answer as one cell: its text, its tool calls if it has no text, the path of its file, or its JSON."""
    if isinstance(value, dict) and request is not None and is_sound_request(request):
        return value.get("file" if operation_of(request.path) == SPEECH else "text")
    if not isinstance(value, ChatCompletion):
        return value
    if value.text or not value.tool_calls:
        return value.text
    return [{"name": call.name, "arguments": call.arguments_json} for call in value.tool_calls]


def _mapping_of(parsed: Any) -> Optional[Mapping[str, Any]]:
    if isinstance(parsed, Mapping):
        return parsed
    if dataclasses.is_dataclass(parsed) and not isinstance(parsed, type):
        return dataclasses.asdict(parsed)
    # Models of pydantic 2 and 1, and named tuples.
    for mark, name in (("model_fields", "model_dump"), ("__fields__", "dict"), ("_fields", "_asdict")):
        if hasattr(type(parsed), mark) and hasattr(parsed, name):
            fields = getattr(parsed, name)()
            return fields if isinstance(fields, Mapping) else None
    return None
