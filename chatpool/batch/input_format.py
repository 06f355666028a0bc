"""The format of an input: what its lines are, and the requests that are made of them.

An :class:`InputFormat` makes a :class:`Row` of each line: it detects which field is the prompt, fills in a
:class:`Template`, and decides where the request goes.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .._wire.operations import CHAT, COMPLETIONS, PATHS, RESPONSES, SOUND_PATHS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from .._wire.request import are_messages
from ..errors import ConfigurationError
from ..types import ChatRequest
from .attach_columns import AttachColumns
from .input_files import CSV, EXCEL, PARQUET, InputLine, InputProblem, Source
from .input_tables import Uncomputed, refuse_array
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
from .sound_files import FILE, SoundColumn, SoundFolder
from .template import Template

__all__ = ["InputFormat", "Row", "is_speech", "names_sounds"]


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
