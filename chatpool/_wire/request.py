"""Make requests: of items of all kinds, and the reask that follows an answer of no use."""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any, Dict, List, Optional, Union

from ..types import ChatCompletion, ChatRequest, Choice
from .attachments import are_parts, user_message, with_parts
from .codec import EMPTY_CELL, encode, is_missing, plain, table_advice
from .operations import CHAT, COMPLETIONS, EMBEDDINGS, OTHER, RESPONSES, operation_of, sends_no_body

__all__ = [
    "are_messages",
    "beginning_of",
    "check_response_form",
    "embedding_request",
    "reask_request",
    "renamed",
    "responses_request",
    "to_request",
]


_BEGINNING_CHARACTERS = 60

_OptionalFields = Optional[Mapping[str, Any]]

_ITEM_KINDS = (
    "an item must be a str, a list of message dicts, a list of texts and attachments, a dict with 'messages', 'input' "
    "or 'prompt', "
    "or a chatpool.ChatRequest; for rows of your own pass prompt=, a function that makes one of these of a row"
)
_MESSAGE_FORM = "a message is a dict such as {'role': 'user', 'content': '...'}"

# Other paths get no model and no defaults: /moderations, for one, refuses a chat model and unknown fields.
_TAKES_MODEL = frozenset({CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS})


def to_request(
    item: Any,
    *,
    model: Optional[str] = None,
    system: Optional[str] = None,
    defaults: _OptionalFields = None,
    extra: _OptionalFields = None,
) -> ChatRequest:
    """Return the request that ``item`` stands for.

    Args:
        item: a str (one user message), an attachment or a list of texts and attachments (one user message too), a
            list of message dicts, a dict (a whole body: ``messages`` goes to ``/chat/completions``, as does a
            ``prompt`` that is a list of messages, ``input`` to ``/responses``, any other ``prompt`` to
            ``/completions``) or a ChatRequest.
        model: the model where the item and ``extra`` name none.
        system: text of a system message, put first unless the messages start with a system or developer message;
            for ``/responses`` it becomes ``instructions`` unless the body has them.
        defaults: body fields where neither the item nor ``extra`` has them.
        extra: body fields that override the item's.

    ``model`` and ``defaults`` are filled in for chat, completions, responses and embeddings; other paths
    (of a ChatRequest) get ``extra`` only.  Attachments in messages become the parts that the API has for them.  The
    item is not changed and its lists may change afterwards.

    Raises:
        TypeError: the item is of no such kind, or asks for a stream; the message says what would be right.
        ConfigurationError: an attachment cannot be used.
    """
    request = _request_of(item)
    # A GET or a DELETE of such a path is about something stored, which has its model.
    operation = OTHER if sends_no_body(request) else operation_of(request.path)
    body = _filled(request.body, operation, model, defaults, extra)
    if system is not None:
        _put_system(body, operation, system)
    if body.get("stream"):
        raise TypeError("this call does not stream: leave 'stream' out of the body, or use pool.stream(...)")
    return _with_body(request, with_parts(body, request.path))


def responses_request(item: Any) -> ChatRequest:
    """Return the request to ``/responses`` that ``item`` stands for, with nothing filled in.

    Args:
        item: a str, an attachment or a list of texts and attachments (one user message), a list of input items
            (messages among them), a dict (a whole body) or a ChatRequest.

    Raises:
        TypeError: the item is of no such kind; the message says what would be right.
    """
    if isinstance(item, str):
        return ChatRequest({"input": item}, RESPONSES)
    if are_parts(item):
        return ChatRequest({"input": [user_message(item)]}, RESPONSES)
    if isinstance(item, Sequence) and not isinstance(item, (bytes, bytearray, memoryview)):
        return ChatRequest(_with_text({"input": item}, "input"), RESPONSES)
    request = _checked_request(item) if isinstance(item, ChatRequest) else None
    if isinstance(item, Mapping) and "messages" not in item:
        request = _request_of_body(item)
    if request is None or operation_of(request.path) != RESPONSES:
        raise TypeError(
            "an item of the Responses API must be a str, a list of input items or a dict with 'input'; for a body with "
            f"'messages' or for another path use pool.chat(...), got {_describe(item)}"
        )
    return request


def embedding_request(
    text: Union[str, Sequence[int]],
    *,
    model: Optional[str],
    defaults: _OptionalFields = None,
    extra: _OptionalFields = None,
) -> ChatRequest:
    """Return the request for the embedding of one text, or of one list of token numbers.

    Raises:
        TypeError: ``text`` is neither.
    """
    if not (isinstance(text, (str, list)) or is_missing(text)) and (hasattr(text, "dtype") or hasattr(text, "as_py")):
        text = plain(text)
    tokens = isinstance(text, (list, tuple)) and bool(text) and all(_is_integer(token) for token in text)
    if not (isinstance(text, str) or tokens):
        raise TypeError(f"a text to embed must be a str or a list of token numbers, got {_describe(text)}")
    is_plain = isinstance(text, str) or all(type(token) is int for token in text)
    value = text if is_plain else [int(token) for token in text]
    return ChatRequest(_filled({"input": value}, EMBEDDINGS, model, defaults, extra), EMBEDDINGS)


def are_messages(value: Any) -> bool:
    """Return whether ``value`` is a list of messages, by its first."""
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]


def renamed(payload: bytes, request: ChatRequest, model: str) -> bytes:
    """Return the encoded body of ``request`` with another model; as it is where neither it nor its path has one."""
    if not payload or (request.model is None and operation_of(request.path) not in _TAKES_MODEL):
        return payload
    return encode({**json.loads(payload), "model": model})


def _request_of(item: Any) -> ChatRequest:
    """Return the item as a request with nothing filled in."""
    if isinstance(item, str):
        return ChatRequest({"messages": [{"role": "user", "content": item}]})
    if isinstance(item, ChatRequest):
        return _checked_request(item)
    if isinstance(item, Mapping):
        return _request_of_body(item)
    if are_parts(item):
        return ChatRequest({"messages": [user_message(item)]})
    if hasattr(item, "as_py") and not is_missing(item):  # a cell of pyarrow's
        return _request_of(plain(item))
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        raise TypeError(f"{_ITEM_KINDS}, got a row with the fields {', '.join(item._fields[:8])}")
    if isinstance(item, Sequence) and not isinstance(item, (bytes, bytearray, memoryview)):
        return ChatRequest({"messages": _messages(item, "a list item")})
    advice = table_advice(item)
    if advice is not None:
        raise TypeError(f"an item is one prompt, got a whole table ({type(item).__name__}): use map, and {advice}")
    raise TypeError(f"{_ITEM_KINDS}, got {_describe(item)}")


def _checked_request(request: ChatRequest) -> ChatRequest:
    # As Any: dataclasses do not hold callers to the types they declare.
    body: Any = request.body
    path: Any = request.path
    method: Any = request.method
    if not isinstance(body, Mapping):
        raise TypeError(f"ChatRequest.body must be a dict, got {_describe(body)}")
    if not (isinstance(path, str) and path.startswith("/")):
        raise TypeError(f"ChatRequest.path must be a path below base_url such as '/chat/completions', got {path!r}")
    if not (isinstance(method, str) and method.isalpha()):
        raise TypeError(f"ChatRequest.method must be an HTTP method such as 'POST', got {method!r}")
    check_response_form(request.response)
    return request


def check_response_form(form: Any) -> None:
    """Refuse what is no form of an answer.

    Raises:
        TypeError: it is none.
    """
    if not (isinstance(form, os.PathLike) or form in ("json", "text", "bytes")):
        raise TypeError(f"response must be 'json', 'text', 'bytes' or a path (pathlib.Path), got {form!r}")


def _request_of_body(body: Mapping[str, Any]) -> ChatRequest:
    if "messages" in body:
        return ChatRequest({**body, "messages": _messages(body["messages"], "'messages'")})
    if "input" in body:
        return ChatRequest(_with_text(body, "input"), RESPONSES)
    # A prompt that is a dict names a template stored at the server, which only the Responses API has.
    if isinstance(body.get("prompt"), Mapping):
        return ChatRequest(body, RESPONSES)
    if are_messages(body.get("prompt")):
        messages = _messages(body["prompt"], "'prompt'")
        return ChatRequest({**{name: body[name] for name in body if name != "prompt"}, "messages": messages})
    if "prompt" in body:
        return ChatRequest(_with_text(body, "prompt"), COMPLETIONS)
    keys = ", ".join(repr(key)[:40] for key in list(body)[:8]) or "no keys at all"
    raise TypeError(f"a dict item must have 'messages', 'input' or 'prompt', got {keys}; {_ITEM_KINDS}")


def _with_text(body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = body[field]
    if isinstance(value, str):
        return body
    if isinstance(value, (list, tuple)) and value:
        return {**body, field: list(value)}
    raise TypeError(f"{field!r} must be a str or a list that is not empty, got {_describe(value)}")


def _messages(messages: Any, where: str) -> List[Mapping[str, Any]]:
    """Return a copy of the list of messages, each checked."""
    if isinstance(messages, (str, bytes)) or not isinstance(messages, Sequence):
        raise TypeError(f"{where} must be a list of message dicts, got {_describe(messages)}; {_MESSAGE_FORM}")
    if not messages:
        raise TypeError(f"{where} must hold at least one message, got an empty list; {_MESSAGE_FORM}")
    for index, message in enumerate(messages):
        _check_message(message, f"message {index} of {where}")
    return list(messages)


def _check_message(message: Any, where: str) -> None:
    if isinstance(message, (ChatCompletion, Choice)):
        raise TypeError(f"{where} is a {type(message).__name__}: put its .message into the list")
    if isinstance(message, str):
        raise TypeError(f"{where} is a str; {_MESSAGE_FORM}. To send several prompts give them as separate items")
    if not isinstance(message, Mapping):
        raise TypeError(f"{where} is {_describe(message)}; {_MESSAGE_FORM}")
    role = message.get("role")
    if not isinstance(role, str):
        raise TypeError(f"{where} has no 'role'; {_MESSAGE_FORM}")
    # An assistant's message may hold tool calls, a refusal or audio and no content.
    if "content" not in message and role != "assistant":
        raise TypeError(f"{where} (role {role!r}) has no 'content'; {_MESSAGE_FORM}")
    content = message.get("content")
    if type(content) is not str and is_missing(content) and (role == "user" or content is not None):
        raise TypeError(f"{where} (role {role!r}): {EMPTY_CELL}: its 'content' is {content}; fill it, or leave it out")


def _filled(
    body: Mapping[str, Any], operation: str, model: Optional[str], defaults: _OptionalFields, extra: _OptionalFields
) -> Dict[str, Any]:
    """Return ``body`` with the fields that it lacks; a model that is None or empty counts as missing."""
    extra = extra or {}
    if operation not in _TAKES_MODEL:
        return {**body, **extra}
    defaults = defaults or {}
    filled = {**defaults, **body, **extra}
    named = extra.get("model") or body.get("model") or model or defaults.get("model")
    if named:
        filled["model"] = named
    else:
        filled.pop("model", None)
    return filled


def _put_system(body: Dict[str, Any], operation: str, system: str) -> None:
    if not isinstance(system, str):
        raise TypeError(f"system must be a str, got {_describe(system)}")
    if operation == COMPLETIONS:
        raise TypeError("system has no place in a request with 'prompt': put it into the prompt, or use 'messages'")
    if operation == RESPONSES:
        if body.get("instructions") is None:
            body["instructions"] = system
    elif operation == CHAT:
        messages = body.get("messages") or ()
        first = messages[0] if isinstance(messages, (list, tuple)) and messages else {}
        if not (isinstance(first, Mapping) and first.get("role") in ("system", "developer")):
            body["messages"] = [{"role": "system", "content": system}, *messages]


def _is_integer(value: Any) -> bool:
    return type(value) is int or (isinstance(value, numbers.Integral) and not isinstance(value, bool))


def _describe(value: Any) -> str:
    """Return a description of ``value`` for a message that does not show it: it may be a prompt."""
    if is_missing(value):
        return f"{value}: {EMPTY_CELL}"
    if isinstance(value, (list, tuple, dict)) and not value:
        return f"an empty {type(value).__name__}"
    return f"a value of type {type(value).__name__}"


_REASK_MESSAGE = "Your answer cannot be used: {reason}\nAnswer again: the whole answer, put right, and nothing else."


def reask_request(request: ChatRequest, completion: ChatCompletion, reason: str) -> Optional[ChatRequest]:
    """Return ``request`` with the answer and its fault appended; None where a request has no conversation.

    Args:
        request: the request that was sent.
        completion: its answer.
        reason: why the answer is of no use.
    """
    # Only role and content: some servers refuse their own further fields (reasoning, annotations) in a request, and
    # some a message without any text.
    answer = {"role": "assistant", "content": _sendable(completion.text) or "(no text)"}
    question = {"role": "user", "content": _REASK_MESSAGE.format(reason=_sendable(reason))}
    operation = operation_of(request.path)
    if operation == CHAT:
        return _with_field(request, "messages", [*request.body.get("messages", ()), answer, question])
    if operation != RESPONSES:
        return None
    if request.body.get("conversation"):  # the server keeps it, and has appended both already
        return _with_field(request, "input", [question])
    return _with_field(request, "input", [*_input_items(request.body.get("input")), answer, question])


def _with_body(request: ChatRequest, body: Mapping[str, Any]) -> ChatRequest:
    # Not dataclasses.replace, which takes twice as long: this runs once per call.
    return ChatRequest(body, request.path, request.method, request.files, request.response)


def _with_field(request: ChatRequest, field: str, value: List[Any]) -> ChatRequest:
    return _with_body(request, {**request.body, field: value})


def _input_items(value: Any) -> List[Any]:
    """Return the input of the Responses API as a list of items."""
    if isinstance(value, (list, tuple)):
        return list(value)
    message: Dict[str, Any] = {"role": "user", "content": value}
    return [message] if value else []


def _sendable(text: str) -> str:
    """Return the text without half surrogate pairs, which JSON can contain and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def beginning_of(request: ChatRequest) -> str:
    """Return the beginning of the text that a request is about, on one line, for a message; "" without any."""
    body = request.body
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, list):
        contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
        contents += [text for text in messages if isinstance(text, str)]
        texts = [text for text in map(_text_of, contents) if text]
        text = texts[-1] if texts else ""
    else:
        text = _text_of(messages or body.get("prompt"))
    line = " ".join(text.split())
    return line if len(line) <= _BEGINNING_CHARACTERS else f"{line[:_BEGINNING_CHARACTERS]}..."


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return " ".join(text for text in parts if isinstance(text, str))
    return content if isinstance(content, str) else ""
