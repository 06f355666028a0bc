"""How the lines of an input are read: which of its fields is the prompt, and where the requests go."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from ..errors import ConfigurationError
from ..types import ChatRequest
from ..wire.requests import are_messages
from .file_kinds import refuse_array
from .lines import (
    CHAT,
    COMPLETIONS,
    CUSTOM_ID,
    METADATA,
    PATHS,
    RESPONSES,
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
from .sources import CSV, EXCEL, PARQUET, Line, Problem, Source
from .template import Template
from .workbooks import Uncomputed

__all__ = ["Reading", "Row"]

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

    line: Line
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


class Reading:
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

    def row(self, line: Line) -> Row:
        """What a line asks for.

        Raises:
            ValueError: it cannot be used; the message says why.
        """
        value = line.value
        if isinstance(value, Problem):
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

    def recognise(self, line: Line) -> None:
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

    def _of_batch_line(self, line: Line, asked: BatchLine) -> Row:
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

    def _named_row(self, line: Line, fields: Mapping[str, Any], make: Callable[[], _Made]) -> Row:
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
