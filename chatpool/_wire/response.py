"""Good responses: events or JSON, the value that the caller gets for the JSON, and the reason why the model stopped."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from array import array
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ..errors import APIError
from ..types import ChatCompletion, ChatRequest, Choice, ToolCall
from .operations import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, RESPONSES, operation_of
from .reasoning import reasoning_of, reasoning_of_items
from .usage import usage_of

__all__ = [
    "CONTENT_FILTER",
    "HTTP_OK",
    "LENGTH",
    "NOT_SUPPORTED",
    "STOP",
    "TOOL_CALLS",
    "FinishReason",
    "UnusableAnswer",
    "begins_with_events",
    "content_text",
    "decode_response",
    "finish_reason_of",
    "is_event_stream",
    "is_known",
    "is_unsupported_answer",
    "model_names_in",
    "says_json",
    "vector_numbers",
]


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_STARTS = (b"{", b"[", b"<", b'"')
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")


def is_event_stream(headers: Mapping[str, str], start: bytes, *, ended: bool) -> Optional[bool]:
    """Return whether the body of a good response is a stream of events; None while too little of it has come to tell.

    Its first bytes tell.  Some servers do not stream and answer with JSON, whole, or with a page; others stream, and
    call it JSON, or JSON a stream.  The content type counts where the bytes do not tell.

    Args:
        headers: the answer's headers.
        start: the beginning of its body.
        ended: whether that is all of it.
    """
    begin = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if begin.startswith(_OTHER_STARTS):
        return False
    if begin.startswith(_EVENT_FIELDS):
        return True
    if not ended and (_BYTE_ORDER_MARK.startswith(start) or any(field.startswith(begin) for field in _EVENT_FIELDS)):
        return None
    kind = _media_type(headers)
    return not (kind.endswith("json") or kind in ("text/html", "application/xhtml+xml"))


def begins_with_events(content: bytes) -> bool:
    """Return whether a body that is not JSON is a stream of events, by its first bytes."""
    return content[:100].removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(_EVENT_FIELDS)


def says_json(headers: Mapping[str, str]) -> bool:
    """Return whether the content type is that of one JSON document; lines of JSON are something else."""
    return _media_type(headers).endswith(("/json", "+json"))


def _media_type(headers: Mapping[str, str]) -> str:
    return str(headers.get("content-type") or "").partition(";")[0].strip().lower()


HTTP_OK = 200
"""Status of every answer that came whole."""

NOT_SUPPORTED = "not_supported"
"""Code of an error: an answer of this kind cannot be used, and the next one would be of the same kind."""


def is_unsupported_answer(error: APIError) -> bool:
    """Return whether ``error`` is of an answer of a kind that cannot be used."""
    return error.code == NOT_SUPPORTED and error.status_code == HTTP_OK


class UnusableAnswer(Exception):
    """The answer lacks a field that its path must have.

    The message goes on after "the answer", and shows none of its content.

    Attributes:
        error: the error object that came in its place, None without one.
    """

    def __init__(self, message: str, error: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.error = error


def decode_response(request: ChatRequest, payload: Any, request_id: Optional[str]) -> Any:
    """Return the value that the caller gets for ``payload``, the decoded JSON of a good response.

    A :class:`ChatCompletion` for chat, completions and responses; a list of floats for the embedding of one
    text; the JSON as it is for everything else.

    Raises:
        UnusableAnswer: the field that the path must have is missing or empty, or the model failed.
    """
    shape = _shape(request)
    if shape is None:
        return payload
    if not isinstance(payload, dict):
        raise UnusableAnswer(f"is not a JSON object but a {type(payload).__name__}")
    if shape.field == "output":
        _refuse_unsupported(payload)
    parts = payload.get(shape.field)
    if not isinstance(parts, list) or not (parts or shape.may_be_empty):
        raise UnusableAnswer(f"has no {shape.field!r}")
    return shape.decode(request, payload, request_id)


def model_names_in(payload: Any) -> Optional[List[str]]:
    """Return the names in a list of models, the answer to a ``MODELS_REQUEST``; None where it is none."""
    models = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(models, list):
        return None
    return [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]


def is_known(request: ChatRequest) -> bool:
    """Return whether the form of an answer to this request is known."""
    return _shape(request) is not None


def _text_or_none(value: Any) -> Optional[str]:
    return value if isinstance(value, str) else None


# --- chat and completions -------------------------------------------------------------------------------------


def _chat(request: ChatRequest, payload: Dict[str, Any], request_id: Optional[str]) -> ChatCompletion:
    choice = _first_choice(payload)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UnusableAnswer("has a first choice without 'message'")
    calls = message.get("tool_calls")
    return ChatCompletion(
        text=content_text(message.get("content")),
        message=_appendable(message),
        finish_reason=_text_or_none(choice.get("finish_reason")),
        usage=usage_of(payload),
        model=_text_or_none(payload.get("model")),
        id=_text_or_none(payload.get("id")),
        request_id=request_id,
        tool_calls=_chat_tool_calls(calls) if calls else (),
        raw=payload,
        reasoning=reasoning_of(message),
        choices=_further_choices(payload),
    )


def _further_choices(payload: Dict[str, Any]) -> Tuple[Choice, ...]:
    """Return the choices after the first."""
    choices = payload["choices"]
    if len(choices) == 1:
        return ()
    return tuple(_choice(choice, index) for index, choice in enumerate(choices) if index and isinstance(choice, dict))


def _choice(choice: Dict[str, Any], index: int) -> Choice:
    message = choice.get("message")
    if not isinstance(message, dict):  # of a text completion
        message = {"role": "assistant", "content": _text_or_none(choice.get("text")) or ""}
    return Choice(
        index,
        content_text(message.get("content")),
        _appendable(message),
        _text_or_none(choice.get("finish_reason")),
        _chat_tool_calls(message.get("tool_calls")),
        reasoning_of(message),
    )


def _first_choice(payload: Dict[str, Any]) -> Dict[str, Any]:
    choice = payload["choices"][0]
    if not isinstance(choice, dict):
        raise UnusableAnswer("has a first choice that is not an object")
    if choice.get("finish_reason") == "error":
        error = choice.get("error")
        raise UnusableAnswer("has the finish_reason 'error'", error if isinstance(error, dict) else None)
    return choice


def content_text(content: Any) -> str:
    """Return the text of a message's content: a str, or a list of parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _appendable(message: Dict[str, Any]) -> Dict[str, Any]:
    """Return the message as servers accept it back: they send null and [] for absent fields and refuse both."""
    kept = {name: value for name, value in message.items() if name == "content" or (value is not None and value != [])}
    kept.setdefault("role", "assistant")
    return kept


def _chat_tool_calls(calls: Any) -> Tuple[ToolCall, ...]:
    tool_calls = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            tool_calls.append(_tool_call(call.get("id"), function.get("name"), function.get("arguments")))
    return tuple(tool_calls)


def _tool_call(id_: Any, name: Any, arguments: Any) -> ToolCall:
    if isinstance(arguments, dict):  # some servers send the object itself in place of its JSON
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(_text_or_none(id_) or "", _text_or_none(name) or "", _text_or_none(arguments) or "")


def _completion(request: ChatRequest, payload: Dict[str, Any], request_id: Optional[str]) -> ChatCompletion:
    choice = _first_choice(payload)
    text = choice.get("text")
    if not isinstance(text, str):
        raise UnusableAnswer("has a first choice without 'text'")
    message = {"role": "assistant", "content": text}
    return ChatCompletion(
        text=text,
        message=message,
        finish_reason=_text_or_none(choice.get("finish_reason")),
        usage=usage_of(payload),
        model=_text_or_none(payload.get("model")),
        id=_text_or_none(payload.get("id")),
        request_id=request_id,
        raw=payload,
        reasoning=reasoning_of(message),
        choices=_further_choices(payload),
    )


# --- responses ------------------------------------------------------------------------------------------------


def _response(request: ChatRequest, payload: Dict[str, Any], request_id: Optional[str]) -> ChatCompletion:
    if payload.get("status") in ("failed", "cancelled"):
        raise UnusableAnswer(f"has the status {payload['status']!r}")
    items: List[Dict[str, Any]] = [item for item in payload["output"] if isinstance(item, dict)]
    text = "".join(content_text(item.get("content")) for item in items if item.get("type") == "message")
    calls = tuple(
        _tool_call(item.get("call_id"), item.get("name"), item.get("arguments"))
        for item in items
        if item.get("type") == "function_call"
    )
    return ChatCompletion(
        text=text,
        message={"role": "assistant", "content": text},
        finish_reason=_finish_reason_of_status(payload, bool(calls)),
        usage=usage_of(payload),
        model=_text_or_none(payload.get("model")),
        id=_text_or_none(payload.get("id")),
        request_id=request_id,
        tool_calls=calls,
        raw=payload,
        reasoning=reasoning_of_items(items),
    )


def _refuse_unsupported(payload: Dict[str, Any]) -> None:
    """Refuse answers that are still being made, or that wait for an approval: they are empty yet, and are billed."""
    status = payload.get("status")
    if status in ("queued", "in_progress"):
        message = (
            "it is made in the background, which chatpool does not support yet: leave out background=True, or fetch it "
            "with pool.request('/responses/' + id, method='GET')"
        )
        raise UnusableAnswer(f"has the status {status!r}", {"code": NOT_SUPPORTED, "message": message})
    output = payload.get("output")
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "mcp_approval_request":
            message = (
                "chatpool does not support approvals of tool calls yet: set require_approval of the tool to 'never'"
            )
            raise UnusableAnswer("asks for an approval", {"code": NOT_SUPPORTED, "message": message})


def _finish_reason_of_status(payload: Dict[str, Any], has_calls: bool) -> Optional[str]:
    """Return the finish reason of chat for the status, so that callers need to know one set of them."""
    status = payload.get("status")
    if status == "completed":
        return "tool_calls" if has_calls else "stop"
    if status != "incomplete":
        return None
    details = payload.get("incomplete_details")
    reason = _text_or_none(details.get("reason")) if isinstance(details, dict) else None
    return "length" if reason == "max_output_tokens" else reason


# --- embeddings and the rest ----------------------------------------------------------------------------------


def _embeddings(request: ChatRequest, payload: Dict[str, Any], request_id: Optional[str]) -> Any:
    """Return a vector when one text (or one list of token numbers) was asked for, otherwise the JSON as it is."""
    text = request.body.get("input")
    single = isinstance(text, str) or (isinstance(text, (list, tuple)) and text and isinstance(text[0], int))
    if not single:
        return payload
    first = payload["data"][0]
    return vector_numbers(first.get("embedding") if isinstance(first, dict) else None)


def vector_numbers(vector: Any) -> List[float]:
    """Return a vector of an answer as numbers.

    Raises:
        UnusableAnswer: it is none, it is empty, or NaN or an infinity is in it.
    """
    try:
        floats = _floats(vector)
    except (TypeError, ValueError, OverflowError):
        floats = []
    if not floats:
        raise UnusableAnswer("has no 'embedding' that is a list of numbers")
    # The sum of finite numbers is finite, as a rule, and costs a fraction of testing each.
    if not math.isfinite(sum(floats)) and not all(map(math.isfinite, floats)):
        raise UnusableAnswer("has an 'embedding' with NaN or infinity in it: the model can make no vector of this text")
    return floats


def _floats(vector: Any) -> List[float]:
    if isinstance(vector, str):
        # encoding_format=base64: little-endian 32-bit floats.
        floats = array("f")
        floats.frombytes(base64.b64decode(vector, validate=True))
        if sys.byteorder == "big":
            floats.byteswap()
        return floats.tolist()
    return [float(number) for number in vector] if isinstance(vector, list) else []


def _json_answer(request: ChatRequest, payload: Dict[str, Any], request_id: Optional[str]) -> Any:
    return payload


class _Shape(NamedTuple):
    field: str
    decode: Callable[[ChatRequest, Dict[str, Any], Optional[str]], Any]
    may_be_empty: bool = False


_SHAPES: Mapping[str, _Shape] = {
    CHAT: _Shape("choices", _chat),
    COMPLETIONS: _Shape("choices", _completion),
    RESPONSES: _Shape("output", _response, may_be_empty=True),
    EMBEDDINGS: _Shape("data", _embeddings),
    MODERATIONS: _Shape("results", _json_answer),
}


def _shape(request: ChatRequest) -> Optional[_Shape]:
    # A GET of the same path lists what is stored and has another form.
    return _SHAPES.get(operation_of(request.path)) if request.method.upper() == "POST" else None


# --- finish reasons -------------------------------------------------------------------------------------------

STOP, TOOL_CALLS, LENGTH, CONTENT_FILTER = "stop", "tool_calls", "length", "content_filter"

# Names that servers and gateways send in OpenAI's field, without regard to case.  Gemini's own names:
# https://ai.google.dev/api/generate-content#FinishReason
_MEANINGS = {
    STOP: ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete", "completed"),
    TOOL_CALLS: ("tool_calls", "tool_call", "tool_use", "function_call"),
    LENGTH: ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
    CONTENT_FILTER: (
        "content_filter",
        "content_filtered",
        "safety",
        "refusal",
        "sensitive",
        "blocklist",
        "guardrail_intervened",
        "image_prohibited_content",
        "image_recitation",
        "image_safety",
        "model_armor",
        "prohibited_content",
        "recitation",
        "spii",
    ),
}
_MEANING_OF = {name: meaning for meaning, names in _MEANINGS.items() for name in names}

# Names with the name of their type before them, as programs print them.
_TYPE_PREFIX = re.compile(r"^(?:finish_?reason[._])", re.IGNORECASE)


class FinishReason(NamedTuple):
    """Reason why a model stopped.

    Attributes:
        meaning: :data:`STOP`, :data:`TOOL_CALLS`, :data:`LENGTH`, :data:`CONTENT_FILTER`, or the server's name where
            it is none of these.
        refusal: the model's text instead of an answer that it refuses to give, "" as a rule.
    """

    meaning: str
    refusal: str = ""


def finish_reason_of(completion: ChatCompletion) -> FinishReason:
    """Return why the model stopped; a refusal, which servers send with the reason ``stop``, is a content filter's.

    An answer without a reason counts as stopped.
    """
    reason = completion.finish_reason
    meaning = _meaning(reason) if reason else STOP
    if meaning == STOP and completion.tool_calls:
        return FinishReason(TOOL_CALLS)
    refusal = "" if completion.text or completion.tool_calls else _refusal_of(completion)
    return FinishReason(CONTENT_FILTER, refusal) if refusal else FinishReason(meaning)


def _meaning(reason: str) -> str:
    """Return OpenAI's name for a reason; Gemini's endpoint adds its own to that, ``content_filter: RECITATION``."""
    name = _TYPE_PREFIX.sub("", reason.strip()).lower()
    return _MEANING_OF.get(name) or _MEANING_OF.get(name.partition(":")[0].strip(), reason)


def _refusal_of(completion: ChatCompletion) -> str:
    refusal = completion.message.get("refusal")
    if isinstance(refusal, str):
        return refusal
    return "".join(_refusals_in(completion.raw))


def _refusals_in(answer: Any) -> Iterator[str]:
    """Yield the refusals among the output items of the Responses API."""
    items = answer.get("output") if isinstance(answer, dict) else None
    for item in items if isinstance(items, list) else ():
        parts = item.get("content") if isinstance(item, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and isinstance(part.get("refusal"), str):
                yield part["refusal"]
