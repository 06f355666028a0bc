"""The rows of an input and the requests that are made of them.

An :class:`InputFormat` makes a :class:`Row` of each line: it detects which field is the prompt, fills in a
:class:`Template`, and decides where the request goes.  :class:`Rows` selects rows, completes their requests with the
pool's defaults, and looks them up in the journal.
"""

from __future__ import annotations

import contextlib
import json
import string
from array import array
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .._client.batch_support import Encoded, identity_of, payload_of, refuse_unsampled, samples_mark
from .._journal import OK, RENAMED, RESTORED, SET_ASIDE, Journal, Record, hash_of, key_of
from .._wire.operations import CHAT, COMPLETIONS, PATHS, RESPONSES, SOUND_PATHS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from .._wire.request import are_messages
from ..errors import ChatPoolError, ConfigurationError
from ..types import ChatRequest
from .attach_columns import AttachColumns
from .input_files import BLANK, CSV, EXCEL, PARQUET, InputLine, InputProblem, Source
from .input_tables import Uncomputed, refuse_array
from .job import BatchResult, Job, Selection
from .jsonl import (
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
from .sound_files import FILE, SaveFolder, SoundColumn, SoundFolder

__all__ = ["InputFormat", "Row", "RowRequest", "Rows", "Template", "is_speech", "names_sounds"]


class Template:
    """A text with places for fields, such as ``"Translate: {text}"``; ``{{`` and ``}}`` are braces.

    A field that is not a text is filled in as JSON.

    Args:
        text: the text.
        needs_field: whether it has to have a place for one: otherwise all rows would be the same.

    Attributes:
        fields: the names of its fields.

    Raises:
        ConfigurationError: a brace is not closed, or there is no field in it.
    """

    def __init__(self, text: str, *, needs_field: bool = True) -> None:
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
        self.fields = [field for _, field in self._parts if field]
        if needs_field and not self.fields:
            raise ConfigurationError(f"template {text!r} has no place for a field, such as {{text}}")

    def fill(self, fields: Mapping[str, Any], *, may_be_empty: bool = False) -> str:
        """Return the text for one row.

        Args:
            fields: the fields of the row.
            may_be_empty: whether an empty field is filled in as an empty text.

        Raises:
            EmptyCell: a field of the row is empty.
            ValueError: the row lacks a field, or the field is neither a text nor a JSON value.
        """
        return "".join(
            literal + (_text(fields, field, may_be_empty) if field else "") for literal, field in self._parts
        )


def _text(fields: Mapping[str, Any], name: str, may_be_empty: bool) -> str:
    if name not in fields:
        available = ", ".join(list(fields)[:10]) or "none"
        raise ValueError(f"there is no field {name!r} for the template (there are: {available})")
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


# The fields that are sent of an object with a prompt; its other fields are the user's data.
_PARAMETERS = frozenset(
    """model temperature top_p n stop seed max_tokens max_completion_tokens presence_penalty frequency_penalty
    logit_bias logprobs top_logprobs response_format reasoning_effort verbosity tools tool_choice
    parallel_tool_calls service_tier user store""".split()  # noqa: SIM905 - twenty words read better than twenty strings
)


class Row(NamedTuple):
    """One line of input, and its request without the pool's defaults.

    Attributes:
        line: the line.
        custom_id: its name in the output.
        is_named: whether the input gave it that name; otherwise the name is made of its number.
        request: the request; None if none can be made, because of ``problem``.
        meta: the line's ``metadata``, as the cookbook's script has it, which is not sent.
        problem: the reason why no request can be made of it.
        legacy: the request that version 0.1.0 made of it, if that was another one.
        fields: the line's columns, if they go into a table.
    """

    line: InputLine
    custom_id: str
    is_named: bool
    request: Optional[ChatRequest]
    meta: Any = None
    problem: Optional[Exception] = None
    legacy: Optional[ChatRequest] = None
    fields: Optional[Mapping[str, Any]] = None

    @property
    def number(self) -> int:
        """The number of its record, from 1."""
        return self.line.number


class InputFormat:
    """Makes rows of the lines of one input.

    Args:
        source: the input.
        url: the path for lines without one: ``/v1/embeddings``, ``completions``, ``speech`` ... Default: chat, except
            that an ``input`` goes to the Responses API, or to embeddings if the model's name says so. With
            ``transcriptions`` and ``translations`` each row is the path of a sound.
        template: makes prompts of the fields of a row; a line of text has the field ``text``.
        column: the field that is the prompt, or the path of a sound.
        id_field: the field that is a row's name. Default: ``custom_id``; of a folder the name of the file.
        keep_version: whether the ``/v1`` of a line's url is kept, for a base_url that has none.
        model: the model of rows that name none.
        attach: the columns that name files to attach, if any.
        attach_folder: the folder that relative paths of them are below. Default: that of the input, or the current one.

    Attributes:
        kind: the format that the first line shows, for a person.

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
        attach: Union[str, Sequence[str], None] = None,
        attach_folder: Optional[str] = None,
    ) -> None:
        if template is not None and column is not None:
            raise ConfigurationError("give a template or a column, not both: {name} in a template names a column")
        self._source = source
        folder = source.folder if attach_folder is None else attach_folder
        self._attach = AttachColumns(attach or (), folder)
        self._template = None if template is None else Template(template, needs_field=not attach)
        self._column = column
        self._id_field = id_field or (FILE if isinstance(source, SoundFolder) else CUSTOM_ID)
        self._keep_version = keep_version
        self._model = model
        self._path = None if url is None else _known_path(url, keep_version)
        self._sound = self._sound_column(folder)
        self.kind = f"{source.format} without any line"

    def _sound_column(self, folder: str) -> Optional[SoundColumn]:
        """Return the column with the paths of sounds, None if the rows are no sounds."""
        if self._path is None or self._operation() not in (TRANSCRIPTIONS, TRANSLATIONS):
            if isinstance(self._source, SoundFolder):
                raise ConfigurationError(
                    f"{self._source.name} is a folder: its sounds become texts with the url transcriptions or "
                    "translations (--endpoint transcriptions); for anything else name a file of rows"
                )
            return None
        for option, is_set in (("template", self._template is not None), ("attach", self._attach.names)):
            if is_set:
                raise ConfigurationError(f"{option} has no place in rows that go to {self._path}: each is a sound")
        return SoundColumn(self._path, self._column, folder)

    def row(self, line: InputLine) -> Row:
        """Return the row of a line.

        Raises:
            ValueError: the line cannot be used; the message says why.
        """
        row = self._row_without_files(line)
        if not self._attach.names or row.request is None:
            return row
        fields = line.value if isinstance(line.value, dict) else {"text": line.value}
        try:
            return row._replace(request=self._attach.attached(row.request, fields), legacy=None)
        except EmptyCell as error:
            return row._replace(request=None, problem=error, legacy=None)

    def _row_without_files(self, line: InputLine) -> Row:
        value = line.value
        if isinstance(value, InputProblem):
            raise BadLine(value.reason)
        if self._sound is not None:
            return self._of_sound(line, self._sound)
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

    def detect_format(self, line: InputLine) -> None:
        """Look at the first line and set :attr:`kind`.

        Raises:
            ConfigurationError: a table in which no column is clearly the prompt, or a JSON array.
        """
        value = line.value
        if isinstance(value, list) and not (are_messages(value) or is_pair(value)):
            refuse_array(self._source.name)
        self._check_id_field(value)
        self._check_attach(value)
        self.kind = f"{self._source.format}"
        if self._sound is not None:
            self._detect_sounds(value, self._sound)
        elif self._template is not None:
            self.kind = (
                f"{self._table_name if self._source.heading.sheet else self._source.format}, prompts by template"
            )
        elif isinstance(value, str):
            self.kind = "text, one prompt a line"
        elif are_messages(value):
            self.kind = "chats, a list of messages a line"
        elif isinstance(value, list):
            self.kind = "pairs of request and answer, as the cookbook's script writes them; the requests run again"
        elif self._is_table(value):
            self._choose_column(value)
            self.kind = f"{self._table_name}, prompts in column {self._column!r}"
        elif isinstance(value, dict):
            self.kind = self._kind_of_object(value)

    def _detect_sounds(self, value: Any, sound: SoundColumn) -> None:
        if isinstance(self._source, SoundFolder):
            self.kind = "folder of sounds"
        elif isinstance(value, str):
            self.kind = "text, the path of a sound a line"
        elif self._source.format not in (CSV, EXCEL, PARQUET):
            self.kind = f"JSON objects, sounds in {sound.name!r}"
        elif isinstance(value, dict):
            if self._column is None and len(value) == 1:
                sound.name = next(iter(value))
            if sound.name not in value:
                raise ConfigurationError(
                    f"{self._source.name} has no column {sound.name!r}; it has {', '.join(value)}: name the one with "
                    "the paths of sounds (--column)"
                )
            self.kind = f"{self._table_name}, sounds in column {sound.name!r}"

    def _check_attach(self, value: Any) -> None:
        """Refuse columns with files that a table lacks, and lines that are at once the file and the prompt."""
        names = self._attach.names
        missing = next((name for name in names if self._is_table(value) and name not in value), None)
        if missing is not None:
            raise ConfigurationError(f"{self._source.name} has no column {missing!r}; it has {', '.join(value)}")
        if names and isinstance(value, str) and self._template is None:
            raise ConfigurationError(
                f"the lines of {self._source.name} are files to attach: say what to ask about each (--template TEXT)"
            )

    def _check_id_field(self, value: Any) -> None:
        """Refuse an ``id_field`` that cannot name the rows."""
        if self._id_field == CUSTOM_ID:
            return
        is_of_batch = isinstance(value, dict) and is_batch_line(value) and not (self._template or self._column)
        if isinstance(value, str) or is_of_batch:
            why = "they have their custom_id" if is_of_batch else "lines of text have no fields"
            raise ConfigurationError(f"id_field {self._id_field!r} cannot name the rows of {self._source.name}: {why}")

    @property
    def _table_name(self) -> str:
        """The kind of a table, with the name of the sheet if there are several."""
        format_, sheet = self._source.format, self._source.heading.sheet
        return ("CSV" if format_ == CSV else format_.capitalize()) + (f", {sheet}" if sheet else "")

    def _is_table(self, value: Any) -> bool:
        """Return True if one of the columns is the prompt; a Parquet file may hold requests, as JSON lines do."""
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
        prompts = [name for name in ("messages", "prompt", "input") if name in value]
        return f"objects with {' or '.join(prompts)}" if prompts else "JSON objects"

    def _choose_column(self, fields: Mapping[str, Any]) -> None:
        names = list(self._attach.without(fields))
        if self._column is None:
            candidates = [name for name in names if name.strip().lower() == "prompt"] or (
                names if len(names) == 1 else []
            )
            if not candidates:
                raise ConfigurationError(
                    f"{self._source.name} has the columns {', '.join(fields)}: name the one with the prompts "
                    "(--column), or make prompts of several (--template)"
                )
            self._column = candidates[0]
        elif self._column not in fields:
            raise ConfigurationError(f"{self._source.name} has no column {self._column!r}; it has {', '.join(fields)}")

    # -- requests -------------------------------------------------------------------------------------

    def _of_sound(self, line: InputLine, sound: SoundColumn) -> Row:
        value = line.value
        if not isinstance(value, (str, dict)):
            raise BadLine(f"a line must be a JSON object with the path of a sound, got {json_type(value)}")
        if isinstance(value, str):
            return self._named_row(line, {}, lambda: (sound.request({sound.name: value}), None))
        fields: Dict[str, Any] = value
        return self._named_row(line, fields, lambda: (sound.request(fields), None))

    def _of_batch_line(self, line: InputLine, parsed: BatchLine) -> Row:
        if parsed.url is not None:
            request = ChatRequest(parsed.body, self._below_base(parsed.url))
            try:
                refuse_empty_messages(parsed.body.get("messages"))
            except EmptyCell as error:
                return Row(line, parsed.custom_id, True, None, problem=error, legacy=request)
            return Row(line, parsed.custom_id, True, request)
        try:
            body = checked_body(parsed.body) if {"messages", "prompt", "input"} & set(parsed.body) else parsed.body
        except EmptyCell as error:
            legacy = self._legacy_of_body(parsed.body, "")
            return Row(line, parsed.custom_id, True, None, problem=error, legacy=legacy)
        path = self._path or path_of(body, self._model)
        legacy = self._legacy_of_body(parsed.body, path if body == parsed.body else "")
        return Row(line, parsed.custom_id, True, _on_path(body, path), legacy=legacy)

    def _legacy_of_body(self, body: Mapping[str, Any], path: str) -> Optional[ChatRequest]:
        """Return the request that version 0.1.0 made of a body, if that was another one than for this path."""
        legacy_path = self._path or (
            CHAT if "messages" in body else COMPLETIONS if "input" not in body else path_of(body)
        )
        return None if legacy_path == path and not are_messages(body.get("prompt")) else ChatRequest(body, legacy_path)

    def _legacy_of_row(self, fields: Mapping[str, Any]) -> Optional[ChatRequest]:
        """Return the request that version 0.1.0 sent for a row with an empty cell."""
        if self._sound is not None:
            return None
        if self._template is not None:
            return self._prompt_request(self._template.fill(fields, may_be_empty=True), {})
        if self._column is not None:
            text = fields[self._column]
            return self._prompt_request(text, {}) if isinstance(text, str) else None
        body = {name: fields[name] for name in fields if name not in (self._id_field, METADATA)}
        is_prompt = self._operation() == CHAT and "messages" not in body and "input" not in body
        return (
            self._prompt_request(body["prompt"], body)
            if is_prompt and body["prompt"] == ""
            else self._legacy_of_body(body, "")
        )

    def _below_base(self, url: str) -> str:
        return url[3:] if url.startswith("/v1/") and not self._keep_version else url

    def _of_text(self, text: str) -> _RequestPair:
        if self._template is not None:
            text = self._template.fill({"text": text})
        return self._prompt_request(text, {}), None

    def _of_fields(self, fields: Dict[str, Any]) -> _RequestPair:
        if self._template is not None:
            return self._prompt_request(self._template.fill(fields), {}), None
        if self._column is not None:
            if self._column not in fields:
                raise BadLine(f"there is no field {self._column!r}")
            text = fields[self._column]
            if isinstance(text, Uncomputed):
                text.refuse()
            is_cell = self._source.format in (CSV, EXCEL, PARQUET) or text == ""
            if is_cell and (text is None or (isinstance(text, str) and not text.strip())):
                raise EmptyCell(self._column)
            return self._prompt_request(text, {}), None
        return self._of_body(self._attach.without(fields))

    def _of_body(self, body: Dict[str, Any]) -> _RequestPair:
        body.pop(self._id_field, None)
        body.pop(METADATA, None)
        if not ("messages" in body or "input" in body or "prompt" in body):
            keys = ", ".join(repr(key)[:40] for key in list(body)[:8]) or "no fields"
            raise BadLine(f"it has neither 'body', 'messages', 'prompt' nor 'input' (it has {keys})")
        is_chat = self._operation() == CHAT and "messages" not in body
        if is_chat and body.get("prompt") and type(body["prompt"]) is str and "input" not in body:
            return self._prompt_request(body["prompt"], body), None  # the usual case, without the checks
        original, body = body, checked_body(body)
        prompt = body.get("prompt")
        if self._operation() == CHAT and "messages" not in body and (isinstance(prompt, str) or are_messages(prompt)):
            legacy = None if isinstance(prompt, str) else self._legacy_of_body(original, "")
            return self._prompt_request(prompt, body), legacy
        path = self._path or path_of(body, self._model)
        return _on_path(body, path), self._legacy_of_body(original, path if original == body else "")

    def _operation(self) -> str:
        return CHAT if self._path is None else self._path.removeprefix("/v1")

    def _prompt_request(self, text: Any, fields: Mapping[str, Any]) -> ChatRequest:
        """Return the request for a text or the messages of a chat, with those of the fields that are parameters."""
        operation = self._operation()
        is_chat = are_messages(text) and operation in (CHAT, RESPONSES)
        if not (isinstance(text, str) or is_chat):
            raise BadLine(f"the prompt must be a text, got {json_type(text)}")
        if is_chat:
            refuse_empty_messages(text)
        sent: Dict[str, Any] = {name: fields[name] for name in fields if name in _PARAMETERS}
        if operation == CHAT:
            sent["messages"] = text if is_chat else [{"role": "user", "content": text}]
        else:
            sent["prompt" if operation == COMPLETIONS else "input"] = text
        return ChatRequest(sent, self._path or CHAT)

    def _named_row(self, line: InputLine, fields: Mapping[str, Any], make_request: Callable[[], _RequestPair]) -> Row:
        request: Optional[ChatRequest] = None
        legacy: Optional[ChatRequest] = None
        problem: Optional[Exception] = None
        try:
            request, legacy = make_request()
        except EmptyCell as error:
            problem, legacy = error, self._legacy_of_row(fields or {"text": line.value})
        name, meta = fields.get(self._id_field), fields.get(METADATA)
        if isinstance(name, Uncomputed):
            name.refuse()
        if isinstance(meta, bytes):
            raise BadLine(f"{METADATA!r} must be a value of JSON, got {json_type(meta)}")
        if name is None or name == "":
            if self._id_field != CUSTOM_ID and fields:
                raise BadLine(f"there is nothing in the field {self._id_field!r} to name the row by")
            return Row(line, f"row-{line.number}", False, request, meta, problem, legacy)
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise BadLine(f"{self._id_field!r} must be a text or a whole number, got {json_type(name)}")
        return Row(line, str(name), True, request, meta, problem, legacy)


def _known_path(url: str, keep_version: bool) -> str:
    path = "/" + url.strip("/")
    if path.startswith("/v1/"):
        path = path[3:]
    path = next((known for known in SOUND_PATHS if known.endswith(path)), path)  # by its last word
    if path not in (*PATHS, *SOUND_PATHS):
        known_paths = ", ".join(f"/v1{path}" for path in (*PATHS, *SOUND_PATHS))
        raise ConfigurationError(f"url must be one of {known_paths}, got {url!r}")
    return f"/v1{path}" if keep_version else path


def names_sounds(url: Optional[str]) -> bool:
    """Return whether the rows of an input with this url are paths of sounds."""
    return url is not None and _known_path(url, False) in (TRANSCRIPTIONS, TRANSLATIONS)


def is_speech(url: Optional[str]) -> bool:
    """Return whether the rows of an input with this url are texts to be spoken."""
    return url is not None and _known_path(url, False) == SPEECH


# A request, and the one that version 0.1.0 made of the same line, if that was another one.
_RequestPair = Tuple[ChatRequest, Optional[ChatRequest]]


def _on_path(body: Mapping[str, Any], path: str) -> ChatRequest:
    """Return the request; messages under ``prompt`` go under ``messages`` in a chat."""
    if path.endswith(CHAT) and are_messages(body.get("prompt")) and "messages" not in body:
        body = {**{name: body[name] for name in body if name != "prompt"}, "messages": body["prompt"]}
    return ChatRequest(body, path)


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
