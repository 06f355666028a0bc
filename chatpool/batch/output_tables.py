"""The rows of an input with their answers beside them, as a table."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pickle
import tempfile
from types import TracebackType
from typing import IO, Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple, Type

from .._journal import OK, Journal, Record, atomic_replace, decode_value
from .._wire.response import UnusableAnswer, decode_response
from .._wire.usage import usage_of
from ..errors import ConfigurationError
from ..types import ChatCompletion, ChatRequest
from .batch_format import error_line
from .job import Job
from .output_files import Outputs, Paths, refuse_strangers, stdout
from .output_formats import SQLITE, STDOUT, TEXT, Column, Spool, free_name, refuse_other_tables, write_table
from .rows import RowRequest, Rows

__all__ = ["TableOutputs", "check_fields"]

ANSWER, ERROR, TOKENS = "answer", "error", "tokens"
_DEFAULT = (ERROR, TOKENS)
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
    "request_id",
)

_FIELDS_OF_INPUT, _ANSWERS, _FACTS_OF_RUN = range(3)  # the groups of a row


def check_fields(job: Job, columns: Mapping[str, None]) -> None:
    """Look at the names of the columns that are asked for, before anything is sent.

    Args:
        job: says which.
        columns: those of the input.

    Raises:
        ConfigurationError: there is none of this name.
    """
    expected = _expected(job)
    if job.fields is None or expected is None:
        return
    known = {column.name: None for column in _columns([columns, expected, dict.fromkeys(_FACTS)])}
    missing = [name for name in job.fields if name not in known]
    if missing:
        raise ConfigurationError(f"there is no field {missing[0]!r} to write; there are: {', '.join(known)}")


def _expected(job: Job) -> Optional[Dict[str, None]]:
    """The columns that answers are going to have, None where nobody can know."""
    parse = job.answers.parse
    if parse is None:
        return {ANSWER: None}
    properties = parse.get("properties") if isinstance(parse, Mapping) else None
    return dict.fromkeys(map(str, properties)) if isinstance(properties, Mapping) else None


def _columns(names: Sequence[Mapping[str, None]]) -> List[Column]:
    """All columns of a table; a name of the input's stays as it is, others get a number where it is taken."""
    fields, answers, facts = names
    taken: Set[str] = {name.lower() for name in fields}
    made = [Column(name, _FIELDS_OF_INPUT, name) for name in fields]
    default = [Column(free_name(name, taken), _FACTS_OF_RUN, name) for name in _DEFAULT]
    made += [Column(free_name(name, taken), _ANSWERS, name) for name in answers]
    others = [name for name in facts if name not in _DEFAULT and name not in answers]
    return [*made, *default, *(Column(free_name(name, taken), _FACTS_OF_RUN, name) for name in others)]


class _Asked(NamedTuple):
    """A row of standard input, which cannot be read again, without what is not needed any more."""

    fields: Mapping[str, Any]
    custom_id: str
    number: int
    key: int
    hash: str
    request: Optional[ChatRequest]

    @classmethod
    def of(cls, work: RowRequest) -> _Asked:
        row, request = work.row, work.request
        plain = request and ChatRequest(dict(request.body), request.path)  # without its encoded form
        return cls(row.fields or {}, row.custom_id, row.number, work.key, work.hash, plain)


class TableOutputs(Outputs):
    """A table of the rows that have ended, in the order of the input, written when the run ends, however it does.

    Args:
        paths: the files.
        journal: what has been recorded.
        rows: the rows of the input.
        job: which columns, and what answers are.

    Raises:
        ConfigurationError: there is an output of which the journal knows nothing, or a database with more than ours.
    """

    def __init__(self, paths: Paths, journal: Journal, rows: Rows, job: Job) -> None:
        if journal.is_empty:
            refuse_strangers(paths)
        elif paths.format == SQLITE:
            refuse_other_tables(paths.answers)
        self._paths = paths
        self._journal = journal
        self._rows = rows
        self._job = job
        self._wanted = _FACTS if job.fields is not None or paths.format == TEXT else _DEFAULT
        self._review = job.answers.reviewer() if job.answers.parse is not None else None
        # What is written beside an output has room there, and is as safe from others' eyes.
        self._folder = None if paths.answers == STDOUT else os.path.dirname(os.path.abspath(paths.answers))
        self._asked: Optional[IO[bytes]] = None
        try:  # also where it is not needed: better now than when all is paid
            self._asked = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            words = error.strerror or str(error)
            raise ConfigurationError(f"cannot write {paths.answers}: {words}; choose another output") from error
        if not rows.source.is_stream:
            self._asked.close()
            self._asked = None

    def met(self, work: RowRequest) -> None:
        if self._asked is not None:
            pickle.dump(_Asked.of(work), self._asked)

    def finish(self, *, whole: bool = True) -> None:
        del whole  # what there is, is worth having
        with contextlib.ExitStack() as end:
            spool = Spool(3, self._folder)
            end.callback(spool.close)
            errors = None if self._paths.errors is None else end.enter_context(atomic_replace(self._paths.errors))
            for asked, record in self._ended():
                spool.add(asked.fields, *self._told(asked, record))
                if errors is not None and record.state != OK:
                    errors.write(error_line(record))
            columns = self._chosen(spool)
            file = stdout() if self._folder is None else end.enter_context(atomic_replace(self._paths.answers))
            write_table(file, self._paths.answers, self._paths.format, spool, columns, raw=self._job.raw)
            file.flush()

    def _ended(self) -> Iterator[Tuple[_Asked, Record]]:
        """The rows of the input that have ended, selected in this run or not."""
        for asked in self._input():
            record = self._journal.read(asked.key, asked.hash)
            if record is not None:
                yield asked, record

    def _input(self) -> Iterator[_Asked]:
        if self._asked is None:
            nothing_else = self._journal.was_empty and self._job.limit is not None
            for row in itertools.islice(self._rows.every(), self._job.limit if nothing_else else None):
                yield _Asked.of(self._rows.work(row))
            return
        self._asked.seek(0)
        with contextlib.suppress(EOFError):
            while True:
                yield pickle.load(self._asked)  # noqa: S301 - a file of our own, without a name
        self._asked.seek(0, os.SEEK_END)

    def _chosen(self, spool: Spool) -> List[Column]:
        """The columns to write."""
        found = [*spool.names]
        found[_FIELDS_OF_INPUT] = {**self._rows.columns, **found[_FIELDS_OF_INPUT]}
        expected = _expected(self._job)
        if expected is not None:
            found[_ANSWERS] = {**expected, **found[_ANSWERS]}
        all_columns = _columns([*found[:2], dict.fromkeys(_FACTS)])
        by_name = {column.name: column for column in all_columns}
        if self._job.fields is not None:  # one that no answer has had is empty
            return [by_name.get(name) or Column(name, _ANSWERS, name) for name in self._job.fields]
        if self._paths.format == TEXT:
            return [Column(ANSWER, _FACTS_OF_RUN, ANSWER)]
        default = [column for column in all_columns if column.group == _FACTS_OF_RUN and column.key in _DEFAULT]
        return [column for column in all_columns if column.group != _FACTS_OF_RUN] + default

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        try:
            if kind is KeyboardInterrupt:  # in the middle of a wait for a row of standard input
                with contextlib.suppress(OSError):  # what is raised already says more
                    self.finish()
        finally:
            if self._asked is not None:
                self._asked.close()

    # -- one row ------------------------------------------------------------------------------------------

    def _told(self, asked: _Asked, record: Record) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """What its answer says, and the facts about it."""
        stored = decode_value(record.value)
        value = stored
        with contextlib.suppress(UnusableAnswer):
            if isinstance(stored, dict) and asked.request is not None:
                value = decode_response(asked.request, stored, None)
        answers: Dict[str, Any] = {}
        answer = None
        if record.state == OK:
            answer = _answer_in(value)
            answers = {ANSWER: answer} if self._review is None else self._parsed(asked, value, answer)
        known = {"id": asked.custom_id, "row": asked.number, ANSWER: answer}
        facts = {**known, **_facts(record, stored, value)}
        return answers, {name: facts[name] for name in self._wanted}

    def _parsed(self, asked: _Asked, value: Any, answer: Any) -> Dict[str, Any]:
        """The fields of a structured answer; an answer that has none is one by itself."""
        assert self._review is not None
        parsed = None
        if isinstance(value, ChatCompletion):
            found = self._review(asked.request or ChatRequest({}), value, _NEVER_AGAIN).value
            parsed = found.parsed if isinstance(found, ChatCompletion) else None
        fields = _mapping_of(parsed)
        if fields is not None:
            return {str(name): part for name, part in fields.items()}
        return {ANSWER: answer if parsed is None else parsed}


_NEVER_AGAIN = 1 << 30  # askings


def _facts(record: Record, stored: Any, value: Any) -> Dict[str, Any]:
    used = record.usage or usage_of(stored)
    last = record.attempts[-1] if record.attempts else None
    error = record.error
    model = stored.get("model") if isinstance(stored, dict) else None
    return {
        ERROR: None if error is None else f"{error.get('class')}: {error.get('message')}",
        TOKENS: None if used is None else used.total_tokens,
        "prompt_tokens": None if used is None else used.prompt_tokens,
        "completion_tokens": None if used is None else used.completion_tokens,
        "cached_tokens": None if used is None else used.cached_tokens,
        "reasoning_tokens": None if used is None else used.reasoning_tokens,
        "model": model,
        "finish_reason": value.finish_reason if isinstance(value, ChatCompletion) else None,
        "status": None if last is None else last.status,
        "attempts": len(record.attempts),
        "elapsed": record.elapsed,
        "request_id": None if last is None else last.request_id,
    }


def _answer_in(value: Any) -> Any:
    """An answer as one cell: its text, or the calls of tools that it has in its place, a vector, or its JSON."""
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
    # pydantic's, version 2 and 1, and named tuples'.
    for mark, name in (("model_fields", "model_dump"), ("__fields__", "dict"), ("_fields", "_asdict")):
        if hasattr(type(parsed), mark) and hasattr(parsed, name):
            found = getattr(parsed, name)()
            return found if isinstance(found, Mapping) else None
    return None
