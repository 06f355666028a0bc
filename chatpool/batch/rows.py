"""How the lines of an input are read: which of its fields is the prompt, and where the requests go.

Prompts out of the fields of a row.

The rows of an input, with the requests that are made of them.
"""

from __future__ import annotations

import contextlib
import json
import string
from array import array
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .._journal import ASIDE, BACK, GONE, OK, Journal, Record, hash_of, key_of
from .._wire.codec import Encoded, encode
from .._wire.operations import CHAT, COMPLETIONS, PATHS, RESPONSES
from .._wire.request import are_messages
from ..errors import ChatPoolError, ConfigurationError
from ..types import ChatRequest
from .batch_format import (
    CUSTOM_ID,
    METADATA,
    BadLine,
    BatchLine,
    EmptyCell,
    batch_line,
    checked_body,
    is_batch_line,
    is_pair,
    json_type,
    path_of,
    refuse_empty_messages,
    request_of_list,
)
from .input_files import BLANK, CSV, EXCEL, PARQUET, InputLine, InputProblem, Source
from .input_tables import Uncomputed, refuse_array
from .job import BatchResult, Job, Selection

__all__ = ["InputFormat", "Row", "RowRequest", "Rows", "Template"]


class Template:
    """A text with places for fields, such as ``"Translate: {text}"``; ``{{`` and ``}}`` are braces.

    A field that is no text is filled in as JSON.

    Raises:
        ConfigurationError: a brace is not closed, or there is no field in it.
    """

    def __init__(self, text: str) -> None:
        self._parts: List[Tuple[str, str]] = []
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(f"template {text!r}: {error}; write {{{{ for a brace") from error
        for literal, field, spec, conversion in pieces:
            if field == "" or spec or conversion:
                raise ConfigurationError(
                    f"template {text!r}: a place is written {{name}}, with nothing but a name in it"
                )
            self._parts.append((literal, field or ""))
        if not any(field for _, field in self._parts):
            raise ConfigurationError(f"template {text!r} has no place for a field, such as {{text}}")

    def fill(self, fields: Mapping[str, Any], *, may_be_empty: bool = False) -> str:
        """The text for one row.

        Args:
            fields: the row's.
            may_be_empty: whether a field that is empty is filled in as such.

        Raises:
            EmptyCell: a field of the row is empty.
            ValueError: the row lacks a field, or it is no text and has no form in JSON.
        """
        return "".join(
            literal + (_text(fields, field, may_be_empty) if field else "") for literal, field in self._parts
        )


def _text(fields: Mapping[str, Any], name: str, may_be_empty: bool) -> str:
    if name not in fields:
        there = ", ".join(list(fields)[:10]) or "none"
        raise ValueError(f"there is no field {name!r} for the template (there are: {there})")
    value = fields[name]
    if isinstance(value, Uncomputed):
        value.refuse()
    if not may_be_empty and (value is None or (isinstance(value, str) and not value.strip())):
        raise EmptyCell(name)
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # of a Parquet file: bytes, an infinity
        raise ValueError(f"the field {name!r} of the template holds what is no text and has no form in JSON") from None


# What is sent of an object with a prompt besides the prompt; its other fields are the user's own.
_SENT = frozenset(
    """model temperature top_p n stop seed max_tokens max_completion_tokens presence_penalty frequency_penalty
    logit_bias logprobs top_logprobs response_format reasoning_effort verbosity tools tool_choice
    parallel_tool_calls service_tier user store""".split()  # noqa: SIM905 - twenty words read better than twenty strings
)


class Row(NamedTuple):
    """What one line of input asks for.

    Attributes:
        line: where it is.
        custom_id: its name in the output.
        is_named: whether the input gave it that name; otherwise its number is its name.
        request: what to send, before a pool's defaults; None where nothing can be, because of ``problem``.
        meta: the line's ``metadata``, as the cookbook's script has it, which is not sent.
        problem: why nothing can be sent for it.
        former: what version 0.1.0 sent for it, where that was something else.
        fields: the line's columns, where they go into a table.
    """

    line: InputLine
    custom_id: str
    is_named: bool
    request: Optional[ChatRequest]
    meta: Any = None
    problem: Optional[Exception] = None
    former: Optional[ChatRequest] = None
    fields: Optional[Mapping[str, Any]] = None

    @property
    def number(self) -> int:
        """The number of its record, from 1."""
        return self.line.number


class InputFormat:
    """How the lines of one input are read.

    Args:
        source: the input.
        url: where lines go that do not say it: ``/v1/embeddings``, ``completions`` ... Default: chat, except that
            an ``input`` goes to the Responses API, or to embeddings where the model's name says so.
        template: makes prompts of the fields of a row; of a line of text, the field ``text``.
        column: the field that is the prompt.
        id_field: the field that is a row's name. Default: ``custom_id``.
        keep_version: whether the ``/v1`` of a line's url is kept, for a base_url that has none.
        model: the model of rows that name none.

    Attributes:
        kind: what the first line shows the input to be, for a person.

    Raises:
        ConfigurationError: an option that does not fit the input.
    """

    def __init__(
        self,
        source: Source,
        *,
        url: Optional[str] = None,
        template: Optional[str] = None,
        column: Optional[str] = None,
        id_field: Optional[str] = None,
        keep_version: bool = False,
        model: Optional[str] = None,
    ) -> None:
        if template is not None and column is not None:
            raise ConfigurationError("give a template or a column, not both: {name} in a template names a column")
        self._source = source
        self._template = None if template is None else Template(template)
        self._column = column
        self._id_field = id_field or CUSTOM_ID
        self._keep_version = keep_version
        self._model = model
        self._path = None if url is None else self._known_path(url)
        self.kind = f"{source.format} without any line"

    def row(self, line: InputLine) -> Row:
        """What a line asks for.

        Raises:
            ValueError: it cannot be used; the message says why.
        """
        value = line.value
        if isinstance(value, InputProblem):
            raise BadLine(value.reason)
        if isinstance(value, str):
            return self._named_row(line, {}, lambda: self._of_text(value))
        if isinstance(value, list):
            value = request_of_list(value)
        if not isinstance(value, dict):
            raise BadLine(f"a line must be a JSON object, got {json_type(value)}")
        if self._template is None and self._column is None and is_batch_line(value):
            return self._of_batch_line(line, batch_line(value))
        fields: Dict[str, Any] = value
        return self._named_row(line, fields, lambda: self._of_fields(fields))

    def recognise(self, line: InputLine) -> None:
        """Look at the first line and set :attr:`kind`.

        Raises:
            ConfigurationError: it is a table of which it is not clear what the prompts are, or a JSON array.
        """
        value = line.value
        if isinstance(value, list) and not (are_messages(value) or is_pair(value)):
            refuse_array(self._source.name)
        self._check_id_field(value)
        self.kind = f"{self._source.format}"
        if self._template is not None:
            self.kind = f"{self._called if self._source.heading.sheet else self._source.format}, prompts by template"
        elif isinstance(value, str):
            self.kind = "text, one prompt a line"
        elif are_messages(value):
            self.kind = "chats, a list of messages a line"
        elif isinstance(value, list):
            self.kind = "pairs of request and answer, as the cookbook's script writes them; the requests run again"
        elif self._is_table(value):
            self._choose_column(value)
            self.kind = f"{self._called}, prompts in column {self._column!r}"
        elif isinstance(value, dict):
            self.kind = self._kind_of_object(value)

    def _check_id_field(self, value: Any) -> None:
        """Refuse a name of a field that could not name the rows."""
        if self._id_field == CUSTOM_ID:
            return
        is_of_batch = isinstance(value, dict) and is_batch_line(value) and not (self._template or self._column)
        if isinstance(value, str) or is_of_batch:
            why = "they have their custom_id" if is_of_batch else "lines of text have no fields"
            raise ConfigurationError(f"id_field {self._id_field!r} cannot name the rows of {self._source.name}: {why}")

    @property
    def _called(self) -> str:
        """What a table is, and which of several."""
        form, sheet = self._source.format, self._source.heading.sheet
        return ("CSV" if form == CSV else form.capitalize()) + (f", {sheet}" if sheet else "")

    def _is_table(self, value: Any) -> bool:
        """Whether the prompts are in one of the columns; a file of Parquet may hold requests as JSON lines do."""
        if not isinstance(value, dict) or self._source.format not in (CSV, EXCEL, PARQUET):
            return False
        return self._source.format != PARQUET or not ("messages" in value or "input" in value or is_batch_line(value))

    def _kind_of_object(self, value: Mapping[str, Any]) -> str:
        if self._column is not None:
            return f"JSON objects, prompts in {self._column!r}"
        if is_batch_line(value):
            return "OpenAI batch lines"
        if "model" in value:
            return "request bodies, one a line"
        asked = [name for name in ("messages", "prompt", "input") if name in value]
        return f"objects with {' or '.join(asked)}" if asked else "JSON objects"

    def _choose_column(self, fields: Mapping[str, Any]) -> None:
        names = list(fields)
        if self._column is None:
            candidates = [name for name in names if name.strip().lower() == "prompt"] or (
                names if len(names) == 1 else []
            )
            if not candidates:
                raise ConfigurationError(
                    f"{self._source.name} has the columns {', '.join(names)}: name the one with the prompts "
                    "(--column), or make prompts of several (--template)"
                )
            self._column = candidates[0]
        elif self._column not in fields:
            raise ConfigurationError(f"{self._source.name} has no column {self._column!r}; it has {', '.join(names)}")

    # -- requests -------------------------------------------------------------------------------------

    def _of_batch_line(self, line: InputLine, asked: BatchLine) -> Row:
        if asked.url is not None:
            request = ChatRequest(asked.body, self._below_base(asked.url))
            try:
                refuse_empty_messages(asked.body.get("messages"))
            except EmptyCell as error:
                return Row(line, asked.custom_id, True, None, problem=error, former=request)
            return Row(line, asked.custom_id, True, request)
        try:
            body = checked_body(asked.body) if {"messages", "prompt", "input"} & set(asked.body) else asked.body
        except EmptyCell as error:
            former = self._as_before(asked.body, "")
            return Row(line, asked.custom_id, True, None, problem=error, former=former)
        path = self._path or path_of(body, self._model)
        former = self._as_before(asked.body, path if body == asked.body else "")
        return Row(line, asked.custom_id, True, _on_path(body, path), former=former)

    def _as_before(self, body: Mapping[str, Any], path: str) -> Optional[ChatRequest]:
        """What version 0.1.0 made of a body, if that was something else."""
        before = self._path or (CHAT if "messages" in body else COMPLETIONS if "input" not in body else path_of(body))
        return None if before == path and not are_messages(body.get("prompt")) else ChatRequest(body, before)

    def _sent_before(self, fields: Mapping[str, Any]) -> Optional[ChatRequest]:
        """What version 0.1.0 sent for a row of which a cell is empty."""
        if self._template is not None:
            return self._asking(self._template.fill(fields, may_be_empty=True), {})
        if self._column is not None:
            text = fields[self._column]
            return self._asking(text, {}) if isinstance(text, str) else None
        body = {name: fields[name] for name in fields if name not in (self._id_field, METADATA)}
        is_prompt = self._operation() == CHAT and "messages" not in body and "input" not in body
        return self._asking(body["prompt"], body) if is_prompt and body["prompt"] == "" else self._as_before(body, "")

    def _below_base(self, url: str) -> str:
        return url[3:] if url.startswith("/v1/") and not self._keep_version else url

    def _known_path(self, url: str) -> str:
        path = "/" + url.strip("/")
        if path.startswith("/v1/"):
            path = path[3:]
        if path not in PATHS:
            known = ", ".join(f"/v1{path}" for path in PATHS)
            raise ConfigurationError(f"url must be one of {known}; got {url!r}")
        return f"/v1{path}" if self._keep_version else path

    def _of_text(self, text: str) -> _Made:
        if self._template is not None:
            text = self._template.fill({"text": text})
        return self._asking(text, {}), None

    def _of_fields(self, fields: Dict[str, Any]) -> _Made:
        if self._template is not None:
            return self._asking(self._template.fill(fields), {}), None
        if self._column is not None:
            if self._column not in fields:
                raise BadLine(f"there is no field {self._column!r}")
            text = fields[self._column]
            if isinstance(text, Uncomputed):
                text.refuse()
            is_cell = self._source.format in (CSV, EXCEL, PARQUET) or text == ""
            if is_cell and (text is None or (isinstance(text, str) and not text.strip())):
                raise EmptyCell(self._column)
            return self._asking(text, {}), None
        return self._of_body(dict(fields))

    def _of_body(self, body: Dict[str, Any]) -> _Made:
        body.pop(self._id_field, None)
        body.pop(METADATA, None)
        if not ("messages" in body or "input" in body or "prompt" in body):
            keys = ", ".join(repr(key)[:40] for key in list(body)[:8]) or "no fields"
            raise BadLine(f"it has neither 'body', 'messages', 'prompt' nor 'input' (it has {keys})")
        is_chat = self._operation() == CHAT and "messages" not in body
        if is_chat and body.get("prompt") and type(body["prompt"]) is str and "input" not in body:
            return self._asking(body["prompt"], body), None  # as most are
        given, body = body, checked_body(body)
        prompt = body.get("prompt")
        if self._operation() == CHAT and "messages" not in body and (isinstance(prompt, str) or are_messages(prompt)):
            return self._asking(prompt, body), None if isinstance(prompt, str) else self._as_before(given, "")
        path = self._path or path_of(body, self._model)
        return _on_path(body, path), self._as_before(given, path if given == body else "")

    def _operation(self) -> str:
        return CHAT if self._path is None else self._path.removeprefix("/v1")

    def _asking(self, text: Any, fields: Mapping[str, Any]) -> ChatRequest:
        """The request for one text, or the messages of one chat, with those of the fields that are parameters."""
        operation = self._operation()
        is_chat = are_messages(text) and operation in (CHAT, RESPONSES)
        if not (isinstance(text, str) or is_chat):
            raise BadLine(f"the prompt must be a text, got {json_type(text)}")
        if is_chat:
            refuse_empty_messages(text)
        sent: Dict[str, Any] = {name: fields[name] for name in fields if name in _SENT}
        if operation == CHAT:
            sent["messages"] = text if is_chat else [{"role": "user", "content": text}]
        else:
            sent["prompt" if operation == COMPLETIONS else "input"] = text
        return ChatRequest(sent, self._path or CHAT)

    def _named_row(self, line: InputLine, fields: Mapping[str, Any], make: Callable[[], _Made]) -> Row:
        request: Optional[ChatRequest] = None
        former: Optional[ChatRequest] = None
        problem: Optional[Exception] = None
        try:
            request, former = make()
        except EmptyCell as error:
            problem, former = error, self._sent_before(fields or {"text": line.value})
        name, meta = fields.get(self._id_field), fields.get(METADATA)
        if isinstance(name, Uncomputed):
            name.refuse()
        if isinstance(meta, bytes):
            raise BadLine(f"{METADATA!r} must be a value of JSON, got {json_type(meta)}")
        if name is None or name == "":
            if self._id_field != CUSTOM_ID and fields:
                raise BadLine(f"there is nothing in the field {self._id_field!r} to name the row by")
            return Row(line, f"row-{line.number}", False, request, meta, problem, former)
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise BadLine(f"{self._id_field!r} must be a text or a whole number, got {json_type(name)}")
        return Row(line, str(name), True, request, meta, problem, former)


# A request, and what version 0.1.0 made of the same.
_Made = Tuple[ChatRequest, Optional[ChatRequest]]


def _on_path(body: Mapping[str, Any], path: str) -> ChatRequest:
    """The request; messages that are called a prompt are called so no more where they go to a chat."""
    if path.endswith(CHAT) and are_messages(body.get("prompt")) and "messages" not in body:
        body = {**{name: body[name] for name in body if name != "prompt"}, "messages": body["prompt"]}
    return ChatRequest(body, path)


class RowRequest:
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
        reading: InputFormat,
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

    def recall(self, work: RowRequest, journal: Journal, *, dry: bool = False) -> Recalled:
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

    def _former(self, work: RowRequest, journal: Journal) -> Optional[Record]:
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

    def works(self) -> Iterator[RowRequest]:
        """The selected rows; ends early, with :attr:`trouble` set, at a line that cannot be used."""
        selection, known = Selection(self._job, self._total), self._known or b""
        for place, row in enumerate(self._read(None, tell=self._total is None)):
            if not selection.has(place):
                continue
            if place < len(known) and not known[place] & _RUNS:
                yield RowRequest(row, _key(row), "", None, wanted=False)
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
            if not started and not isinstance(line.value, InputProblem):
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

    def _in_columns(self, row: Row, line: InputLine) -> Row:
        """The row with what the input has of it, where that goes into a table."""
        if not self._job.is_table:
            return row
        row = row._replace(fields=_fields_of(line.value))
        self.columns.update(dict.fromkeys(row.fields or ()))
        return row

    def _row(self, line: InputLine, tell: bool) -> Optional[Row]:
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

    def work(self, row: Row) -> RowRequest:
        """A row with its whole request, or with what is wrong with it."""
        key = _key(row)
        if row.request is None:
            return RowRequest(row, key, hash_of("", str(row.problem).encode()), None, row.problem)
        try:
            request = self._make(row.request)
            payload = encode(request.body)
            request = ChatRequest(Encoded(request.body, payload), request.path)  # it is needed again, to be sent
            return RowRequest(row, key, hash_of(request.path, payload), request)
        except (TypeError, ValueError, ChatPoolError) as error:
            body = repr(row.request.body).encode("utf-8", "surrogatepass")
            return RowRequest(row, key, hash_of("", body), None, error)


def _fields_of(value: Any) -> Mapping[str, Any]:
    """The columns that a line of input has; one of text has the column ``text``, as for templates."""
    if isinstance(value, list):
        value = request_of_list(value)
    return {str(name): part for name, part in value.items()} if isinstance(value, dict) else {"text": value}


def _key(row: Row) -> int:
    return key_of(row.custom_id)
