"""The JSON lines of batch files: lines of input and the requests in them, lines of answers and of errors.

The only module that knows the field names of these files (https://platform.openai.com/docs/guides/batch).
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from .._journal import (
    BATCH_API,
    OK,
    Record,
    decode_value,
    encode_value,
    escape_line_breaks,
    json_text,
    may_hold_nan,
    text_or_null,
    without_nan,
)
from .._wire.codec import EMPTY_CELL, loads
from .._wire.operations import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from .._wire.request import are_messages
from .._wire.response import UnusableAnswer, answering_model, usage_of, vector_numbers
from ..errors import ConfigurationError
from ..prices import Charge

__all__ = [
    "BATCH_API_SHARE",
    "CUSTOM_ID",
    "METADATA",
    "BadLine",
    "BatchLine",
    "EmptyCell",
    "ResultLine",
    "answer_line",
    "batch_line",
    "charges_of",
    "checked_body",
    "error_code",
    "error_line",
    "escape_line_breaks",
    "is_batch_line",
    "is_embedding",
    "is_pair",
    "json_text",
    "json_type",
    "path_of",
    "price_share",
    "read_result",
    "refuse_empty_messages",
    "request_of_list",
    "vector_in",
    "without_nan",
]


CUSTOM_ID = "custom_id"
METADATA = "metadata"

_REQUESTS = frozenset({"messages", "prompt", "body"})  # an answer has none of these fields

# The codes of errors that are no response of the server.
_CODES = {
    "APIConnectionError": "connection_error",
    "APITimeoutError": "timeout",
    "APIResponseError": "unusable_answer",
    "ConfigurationError": "invalid_request",
    "DeadlineExceededError": "deadline_exceeded",
    "ParseError": "parse_error",
    "LengthError": "length",
    "ContentFilterError": "content_filter",
}

# --- input --------------------------------------------------------------------------------------------------------


class BadLine(ValueError):
    """A line cannot be used; the message says why."""


class EmptyCell(BadLine):
    """The cell that should be the prompt is empty: this row fails, the others run."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{EMPTY_CELL}: there is nothing in {name!r}; fill it, or leave the row out")
        self._name = name

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self._name,)


class BatchLine(NamedTuple):
    """A line of the Batch API's input: the row's name, the path (None without one) and the body."""

    custom_id: str
    url: Optional[str]
    body: Dict[str, Any]


def is_batch_line(value: Mapping[str, Any]) -> bool:
    """Return True if an object is meant to be a line of the Batch API's input."""
    return "body" in value and ("url" in value or "method" in value or CUSTOM_ID in value)


def batch_line(value: Mapping[str, Any]) -> BatchLine:
    """Check a line of the Batch API's input.

    Raises:
        BadLine: a field is missing or wrong.
    """
    body, method, url, custom_id = value["body"], value.get("method", "POST"), value.get("url"), value.get(CUSTOM_ID)
    if not isinstance(body, dict):
        raise BadLine(f"'body' must be an object, got {json_type(body)}")
    if method != "POST":
        raise BadLine(f"'method' must be POST, got {method!r}")
    if url is not None and not (isinstance(url, str) and url.startswith("/")):
        raise BadLine(f"'url' must be a path such as /v1/chat/completions, got {url!r}")
    if not (isinstance(custom_id, str) and custom_id):
        raise BadLine(f"'custom_id' must be a text that is not empty, got {custom_id!r}")
    return BatchLine(custom_id, url, body)


def is_pair(value: Any) -> bool:
    """Return True if a list is ``[request, answer]`` or ``[request, answer, metadata]``, and not one of requests."""
    if not (len(value) in (2, 3) and isinstance(value[0], dict)):
        return False
    return not isinstance(value[1], dict) or _REQUESTS.isdisjoint(value[1])


def request_of_list(value: Any) -> Dict[str, Any]:
    """Return the request of a line that is a list: messages of a chat, or a pair as the cookbook's script writes it.

    Raises:
        BadLine: the list is neither.
    """
    if are_messages(value):
        return {"messages": value}
    if is_pair(value):
        return {**value[0], METADATA: value[2]} if len(value) == 3 else value[0]
    if value and all(isinstance(part, dict) for part in value):
        raise BadLine("it is a list of requests: write each of them on a line of its own")
    raise BadLine("a line that is a list must be messages, [request, answer] or [request, answer, metadata]")


def refuse_empty_messages(messages: Any) -> None:
    """Refuse messages of a chat in which one of the user's is empty.

    Raises:
        EmptyCell: the content of a user message is null, as an empty cell of a table is in JSON.
    """
    for place, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict) and message.get("role") == "user" and message.get("content", "") is None:
            raise EmptyCell(f"messages[{place}].content")


def path_of(body: Mapping[str, Any], model: Optional[str] = None) -> str:
    """Return the path for a body without a url.

    Args:
        body: the body.
        model: the model if the body names none.
    """
    if "messages" in body or are_messages(body.get("prompt")):
        return CHAT
    if "input" not in body:
        return RESPONSES if isinstance(body.get("prompt"), dict) else COMPLETIONS
    # The Responses API and embeddings both have "input"; the names of embedding models tell them apart.
    return EMBEDDINGS if "embed" in str(body.get("model") or model or "").lower() else RESPONSES


def checked_body(body: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a body with a usable prompt, without the fields of prompts that are null.

    Raises:
        EmptyCell: the prompt is an empty text.
        BadLine: there is no usable prompt.
    """
    present = [name for name in _TYPES if name in body]
    filled = [name for name in present if body[name] is not None]
    if not filled:
        raise BadLine(f"{present[0]!r} is null: {EMPTY_CELL}")
    for name in filled:
        value = body[name]
        if value == "":
            raise EmptyCell(name)
        if not (isinstance(value, _TYPES[name]) and value):
            actual = json_type(value) if value or not isinstance(value, (list, dict)) else "nothing"
            raise BadLine(f"{name!r} must be {_PROMPTS[name]}, got {actual}")
    refuse_empty_messages(body.get("messages") or body.get("prompt"))
    if isinstance(body.get("prompt"), dict) and "id" not in body["prompt"]:
        raise BadLine(
            f"'prompt' must be {_PROMPTS['prompt']}, got an object; of pandas, write to_json(..., "
            "orient='records', lines=True)"
        )
    return {name: value for name, value in body.items() if value is not None or name not in present}


_TYPES = {"messages": (list,), "prompt": (str, list, dict), "input": (str, list)}
_PROMPTS = {
    "messages": "a list of messages",
    "prompt": "a text or a list of messages",
    "input": "a text or a list",
}


def is_embedding(path: str) -> bool:
    """Return True if requests to this path ask for embeddings."""
    return path.endswith(EMBEDDINGS)


def vector_in(record: Record) -> Any:
    """Return the vector in the record of an answer, of either encoding; None without one.

    Raises:
        ConfigurationError: the answer has several.
    """
    if record.state != OK:
        return None
    answer = decode_value(record.value)
    data = answer.get("data") if isinstance(answer, dict) else None
    if not (isinstance(data, list) and data and isinstance(data[0], dict)):
        return None
    if len(data) > 1:
        raise ConfigurationError(
            f"{record.custom_id} has {len(data)} vectors, and a matrix takes one for each row: give each text a row, "
            "or write to a .jsonl"
        )
    try:
        return vector_numbers(data[0].get("embedding"))
    except UnusableAnswer:
        return None


def json_type(value: Any) -> str:
    """Return the name of the type of a JSON value, for a message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return "bytes that are no text" if isinstance(value, bytes) else names.get(type(value), "a number")


BATCH_API_SHARE = 0.5
"""The share of its price that an answer of the Batch API costs (https://platform.openai.com/docs/guides/batch)."""


def charges_of(record: Record, stored: Any) -> Sequence[Charge]:
    """Return what each request of a row has cost; ``stored`` is the JSON of its answer."""
    usage = record.usage or usage_of(stored)
    return record.charges or (Charge(usage, record.model, answering_model(stored)),)


def price_share(record: Record) -> float:
    """Return the share of the price that the answer of a row has cost."""
    is_of_batch = bool(record.attempts) and record.attempts[-1].endpoint == BATCH_API
    return BATCH_API_SHARE if is_of_batch else 1.0


# --- output -------------------------------------------------------------------------------------------------------


def answer_line(record: Record) -> bytes:
    """Return the line of a success."""
    last = record.attempts[-1] if record.attempts else None
    status = last.status if last is not None and last.status is not None else 200
    request_id = text_or_null(None if last is None else last.request_id)
    head = _head(record) + f'"response": {{"status_code": {status}, "request_id": {request_id}, "body": '
    return head.encode("ascii") + _value(record.value) + b'}, "error": null' + _meta(record) + b"}\n"


def _value(value: bytes) -> bytes:
    if may_hold_nan(value):
        with contextlib.suppress(ValueError):  # nested too deeply to be decoded
            value = encode_value(without_nan(loads(value)))
    return escape_line_breaks(value)


def error_line(record: Record) -> bytes:
    """Return the line of a failure: the server's error response, or the reason why there was no response."""
    error_facts = record.error or {}
    status = error_facts.get("status_code")
    if isinstance(status, int) and status >= 300:
        request_id = error_facts.get("request_id")
        response = {"status_code": status, "request_id": request_id, "body": _error_body(error_facts)}
        text = f'"response": {json_text(response)}, "error": null'
    else:
        error = {"code": error_code(error_facts), "message": error_facts.get("message")}
        text = f'"response": null, "error": {json_text(error)}'
    return (_head(record) + text).encode() + _meta(record) + b"}\n"


def error_code(error_facts: Mapping[str, Any]) -> str:
    """Return the code of a failure that is no response of the server."""
    name = error_facts.get("class")
    if name == "APIError" and isinstance(error_facts.get("code"), str):  # the Batch API's own, such as batch_expired
        return str(error_facts["code"])
    return _CODES.get(str(name), "internal_error")


def _head(record: Record) -> str:
    return f'{{"id": "batch_req_{record.key:016x}", "custom_id": {text_or_null(record.custom_id)}, '


def _meta(record: Record) -> bytes:
    return b"" if record.meta is None else b', "metadata": ' + json_text(record.meta).encode()


def _error_body(error_facts: Mapping[str, Any]) -> Mapping[str, Any]:
    body = error_facts.get("body")
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return body
    return {"error": {name: error_facts.get(name) for name in ("message", "type", "param", "code")}}


class ResultLine(NamedTuple):
    """A line of output.

    Attributes:
        custom_id: the row's name.
        ok: True for an answer, False for an error.
        status: HTTP status, None without a response.
        code: the error's code, type or message; None for an answer.
        body: the answer's JSON.
        message: the error's message, None without one.
        request_id: the server's name of the request, None without one.
    """

    custom_id: Optional[str]
    ok: bool
    status: Optional[int]
    code: Optional[str]
    body: Any
    message: Optional[str] = None
    request_id: Optional[str] = None

    @property
    def refused_with(self) -> Optional[int]:
        """The status of the response that refuses the row, None without one."""
        return self.status if isinstance(self.status, int) and self.status >= 300 else None


def read_result(line: str) -> ResultLine:
    """Decode a line of an output or an error file: ours, the Batch API's, vLLM's or the cookbook script's.

    Raises:
        ValueError: the line is none of these.
    """
    value = loads(line)
    if isinstance(value, list):
        return _read_pair(value)
    if not (isinstance(value, dict) and ("response" in value or "error" in value)):
        raise ValueError("it has neither 'response' nor 'error'")
    response: Dict[str, Any] = value["response"] if isinstance(value.get("response"), dict) else {}
    status, body, error = response.get("status_code"), response.get("body"), value.get("error")
    name, request_id = value.get("custom_id"), response.get("request_id")
    error_in_body = body.get("error") if isinstance(body, dict) else None
    is_refused = (isinstance(status, int) and status >= 300) or not response
    if error or error_in_body or is_refused:
        reason = error or error_in_body
        return ResultLine(name, False, status, _code(reason), body, _message(reason), request_id)
    return ResultLine(name, True, status, None, body, None, request_id)


def _read_pair(value: Any) -> ResultLine:
    if len(value) not in (2, 3):
        raise ValueError("a list must be [request, answer] or [request, answer, metadata]")
    answer = value[1]
    if isinstance(answer, dict) and not answer.get("error"):
        return ResultLine(None, True, 200, None, answer)
    last = answer[-1] if isinstance(answer, list) and answer else answer
    error = last.get("error") if isinstance(last, dict) else last
    return ResultLine(None, False, None, _code(error), None, _message(error))


def _message(error: Any) -> Optional[str]:
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None


def _code(error: Any) -> str:
    if isinstance(error, dict):
        code = error.get("code") or error.get("type") or error.get("message")
        return str(code)[:80] if code else "error"
    return str(error)[:80] if error else "error"
