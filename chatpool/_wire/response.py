"""Good responses: events or JSON, the value that the caller gets, and what a response says about itself.

That is its usage (tokens and money), the model's reasoning, the reason why the model stopped, and an error inside a
response of status 200; each in the fields of all known servers.
"""

from __future__ import annotations

import base64
import email.message
import functools
import json
import math
import re
import sys
from array import array
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Pattern,
    Sequence,
    Tuple,
    Union,
)

from ..errors import APIError
from ..types import ChatCompletion, ChatRequest, Choice, ToolCall, Usage
from .operations import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGE_EDITS,
    IMAGES,
    MODERATIONS,
    RESPONSES,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    operation_of,
)

__all__ = [
    "CONTENT_FILTER",
    "END_OF_THOUGHTS",
    "HTTP_OK",
    "LENGTH",
    "NOT_SUPPORTED",
    "STOP",
    "TOOL_CALLS",
    "WITHDRAWN",
    "FinishReason",
    "UnfinishedAnswer",
    "UnusableAnswer",
    "amount_of",
    "answering_model",
    "begins_with_events",
    "content_text",
    "decode_response",
    "finish_reason_of",
    "inner_error",
    "is_event_stream",
    "is_known",
    "is_over",
    "is_unsupported_answer",
    "model_and_reason",
    "model_names_in",
    "opened_thoughts",
    "reasoning_of",
    "reasoning_of_items",
    "says_json",
    "says_page",
    "separate_reasoning",
    "text_of",
    "usage_fields_of",
    "usage_of",
    "vector_numbers",
    "whole_number",
]


_MAX_TOKENS = 10**9  # of one answer; more is a mistake, which must count neither against a limit nor a budget
_MAX_COST = 1e6

_PROMPT_FIELDS = ("prompt_tokens", "input_tokens")
_COMPLETION_FIELDS = ("completion_tokens", "output_tokens")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_COMPLETION_DETAILS = ("completion_tokens_details", "output_tokens_details")
# DeepSeek, Moonshot, Anthropic
_CACHED_FIELDS = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
# At Anthropic no part of input_tokens.
_BESIDE_INPUT_FIELDS = ("cache_read_input_tokens", "cache_creation_input_tokens")
# OpenRouter, Perplexity (in an object "cost"), DeepInfra
_PLAIN_COST_FIELDS = ("cost", "total_cost", "estimated_cost")
_TICKS_FIELD, _TICKS_PER_DOLLAR = "cost_in_usd_ticks", 1e10  # xAI

_COST_FIELDS = frozenset({*_PLAIN_COST_FIELDS, _TICKS_FIELD})

_PAGES = frozenset({"text/html", "application/xhtml+xml"})

_NUMBER = re.compile(r"\d{1,30}(?:\.\d*)?(?:[eE][+-]?\d{1,3})?")


def usage_of(payload: Any) -> Optional[Usage]:
    """Return the tokens that an answer says it used, counted as they are billed.

    None when it does not say, or says something impossible: nothing but zeros, or more than a billion.
    """
    if not isinstance(payload, dict):
        return None
    # Where texts are only read (embeddings, reranking), tokens that no part names were read as well.
    only_reads = "choices" not in payload and ("data" in payload or "results" in payload)
    fields = usage_fields_of(payload)
    usage = _usage_in(fields, only_reads) if isinstance(fields, dict) else None
    if usage is None and isinstance(choices := payload.get("choices"), list):
        inside = (choice.get("usage") for choice in reversed(choices) if isinstance(choice, dict))  # Moonshot
        usage = next(filter(None, (_usage_in(fields, False) for fields in inside if isinstance(fields, dict))), None)
    return usage


def usage_fields_of(payload: Mapping[str, Any]) -> Any:
    """Return the usage that an answer, or a chunk of one, states beside its choices; as it stands there."""
    fields = payload.get("usage")
    if not fields and isinstance(of_groq := payload.get("x_groq"), dict):
        return of_groq.get("usage")  # the last chunk of Groq's streams
    return fields


def _usage_in(fields: Dict[str, Any], only_reads: bool) -> Optional[Usage]:
    read, written = _count(fields, *_PROMPT_FIELDS), _count(fields, *_COMPLETION_FIELDS)
    total = _count(fields, "total_tokens")
    cached = _part(fields, _PROMPT_DETAILS, "cached_tokens", *_CACHED_FIELDS)
    reasoning = _part(fields, _COMPLETION_DETAILS, "reasoning_tokens", "reasoning_tokens")
    if read is not None and total is None and "prompt_tokens" not in fields:
        read += sum(_count(fields, name) or 0 for name in _BESIDE_INPUT_FIELDS)
    only_reads = only_reads or (read is None and written is not None)
    read, written, total = read or 0, written or 0, total or 0
    if reasoning > written:  # so it is no part of it (xAI)
        written += reasoning
    if cached > _MAX_TOKENS:
        cached = 0
    if cached > read:  # so it is no part of it either (Anthropic's, behind some gateways)
        read += cached
    rest = total - read - written
    if rest > 0 and only_reads:
        read += rest
    elif rest > 0:
        written += rest
    if read > _MAX_TOKENS or written > _MAX_TOKENS:  # what the other numbers are is no better known
        return None
    cost = _cost(fields)
    if not read + written and not cost:
        return None
    return Usage(read, written, read + written, cached, reasoning, cost)


def _part(fields: Dict[str, Any], details: Sequence[str], name: str, *names: str) -> int:
    """Return a count in the details, or beside them."""
    for details_name in details:
        inner = fields.get(details_name)
        count = _count(inner, name) if inner and isinstance(inner, dict) else None
        if count is not None:
            return count
    return _count(fields, *names) or 0


def _count(fields: Dict[str, Any], *names: str) -> Optional[int]:
    """Return the first of these fields that is a number of tokens; None where none is."""
    for name in names:
        value = fields.get(name)
        if type(value) is int and value >= 0:  # as nearly always: it is looked at once per answer
            return value
        if value is not None and (count := whole_number(value)) is not None:
            return count
    return None


def whole_number(value: Any) -> Optional[int]:
    """Return a count as servers write it (38, 37.25, "38"), rounded up; None for anything else."""
    amount = amount_of(value)
    if not isinstance(amount, float):
        return amount
    return math.ceil(amount - 1e-9) if amount < math.inf else 10 * _MAX_TOKENS


def amount_of(value: Any) -> Union[int, float, None]:
    """Return a number, also one in digits, that is not negative; None for anything else."""
    if isinstance(value, str):
        text = value.strip().replace(",", "")
        value = float(text) if _NUMBER.fullmatch(text) else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and value >= 0 else None  # NaN is not


def _cost(fields: Dict[str, Any]) -> Optional[float]:
    """Return the money that is stated; None where there is none, or an impossible sum."""
    if _COST_FIELDS.isdisjoint(fields):
        return None
    inner = fields.get("cost")
    for place in (fields, inner if isinstance(inner, dict) else {}):
        for name in _PLAIN_COST_FIELDS:
            cost = amount_of(place.get(name))
            if cost is not None and cost <= _MAX_COST:
                return _with_upstream(float(cost), fields) if fields.get("is_byok") is True else float(cost)
    ticks = amount_of(fields.get(_TICKS_FIELD))
    return None if ticks is None or ticks > _MAX_COST * _TICKS_PER_DOLLAR else ticks / _TICKS_PER_DOLLAR


def _with_upstream(fee: float, fields: Dict[str, Any]) -> Optional[float]:
    """Return the fee plus the provider's price, for a key of one's own (OpenRouter); None where that is unknown."""
    details = fields.get("cost_details")
    upstream = amount_of(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    return None if upstream is None or upstream > _MAX_COST else fee + float(upstream)


# DeepSeek, vLLM, xAI, llama.cpp; OpenRouter, Groq, newer vLLM; Ollama; OpenRouter's pieces; Anthropic's, of LiteLLM.
_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
# Tags that models write before the answer.  Chat templates often keep the opening tag for themselves.
_OPENING = re.compile(r"\s*[<\[](think|thinking|thoughts?|reasoning|reflection|seed:think)[>\]]", re.IGNORECASE)
END_OF_THOUGHTS = "</think>"


def reasoning_of(message: Mapping[str, Any]) -> Optional[str]:
    """Return the reasoning in a message, None without any.

    Servers that do not separate it have it before the answer, in tags or up to ``</think>``.
    """
    reasoning = separate_reasoning(message)
    content = message.get("content")
    if reasoning is None and isinstance(content, str):
        return _before_answer(content)
    return reasoning


def opened_thoughts(text: str) -> Tuple[List[str], str]:
    """Return the thoughts that stand in tags at the beginning of a text, and the text after them."""
    thoughts: List[str] = []
    start = 0
    while True:
        opening = _OPENING.match(text, start)
        closing = None if opening is None else _closing(opening[1].lower()).search(text, opening.end())
        if opening is None or closing is None:
            return thoughts, text[start:]
        thoughts.append(text[opening.end() : closing.start()].strip())
        start = closing.end()


@functools.cache  # of the few tags there are
def _closing(tag: str) -> Pattern[str]:
    return re.compile(rf"[<\[]/{re.escape(tag)}[>\]]", re.IGNORECASE)


def separate_reasoning(message: Mapping[str, Any]) -> Optional[str]:
    """Return the reasoning that has a field of its own in a message, or in a piece of one; None without any."""
    for name in _FIELDS:
        if name in message:
            reasoning = _joined(message[name])
            if reasoning:
                return reasoning
    content = message.get("content")
    if isinstance(content, list):  # Mistral
        parts = [part for part in content if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")]
        return _joined(parts) or None
    return None


def reasoning_of_items(items: Iterable[Mapping[str, Any]]) -> Optional[str]:
    """Return the reasoning among the output items of a response: its text, or else its summary; None without any."""
    texts = []
    for item in items:
        if item.get("type") == "reasoning":
            text = _joined(item.get("content")) or "\n\n".join(filter(None, map(_text_in, _list(item.get("summary")))))
            if text:
                texts.append(text)
    return "\n\n".join(texts) or None


def _joined(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _text_in(value)
    return "".join(map(_text_in, _list(value)))


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else []


def _text_in(piece: Any) -> str:
    """Return the text of one piece, whatever its field's name."""
    if isinstance(piece, str):
        return piece
    if isinstance(piece, dict):
        for name in ("text", "thinking", "summary", "content", "reasoning"):
            if piece.get(name):
                return _joined(piece[name])
    return ""


def _before_answer(content: str) -> Optional[str]:
    thoughts, _ = opened_thoughts(content)
    if not thoughts and END_OF_THOUGHTS in content:
        before = content.partition(END_OF_THOUGHTS)[0]
        if "<think>" not in before and not _is_json(content):  # the template of the model begins it
            return before.strip() or None
    opening = None if thoughts else _OPENING.match(content)
    if opening is not None:  # the answer was cut before they ended
        return content[opening.end() :].strip() or None
    return "\n\n".join(filter(None, thoughts)) or None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


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
    return not (kind.endswith("json") or kind in _PAGES)


def begins_with_events(content: bytes) -> bool:
    """Return whether a body that is not JSON is a stream of events, by its first bytes."""
    return content[:100].removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(_EVENT_FIELDS)


def says_json(headers: Mapping[str, str]) -> bool:
    """Return whether the content type is that of one JSON document; lines of JSON are something else."""
    return _media_type(headers).endswith(("/json", "+json"))


def says_page(headers: Mapping[str, str]) -> bool:
    """Return whether the content type is that of a page for people."""
    return _media_type(headers) in _PAGES


def text_of(content: bytes, headers: Mapping[str, str]) -> str:
    """Return an answer that is text, in the encoding that its content type names; UTF-8 without one."""
    message = email.message.Message()
    message["content-type"] = str(headers.get("content-type") or "")
    try:
        return content.decode(message.get_content_charset("utf-8-sig"), "replace")
    except LookupError:
        return content.decode("utf-8-sig", "replace")


def _media_type(headers: Mapping[str, str]) -> str:
    return str(headers.get("content-type") or "").partition(";")[0].strip().lower()


HTTP_OK = 200
"""Status of every answer that came whole."""

NOT_SUPPORTED = "not_supported"
"""Code of an error: an answer of this kind cannot be used, and the next one would be of the same kind."""


WITHDRAWN = "response_cancelled"
"""Code of an error: somebody has had the server stop making the answer."""


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


class UnfinishedAnswer(UnusableAnswer):
    """The server goes on making the answer, in the background.

    Attributes:
        response_id: the server's name for it, as it came.
    """

    def __init__(self, message: str, error: Dict[str, Any], response_id: Any) -> None:
        super().__init__(message, error)
        self.response_id = response_id


_OTHER_ERROR_FIELDS = frozenset({"success", "base_resp"})


def inner_error(payload: Any) -> Any:
    """Return the error inside the JSON of a response, None without one.

    ``{"error": ...}``, vLLM's ``{"object": "error", ...}``, Gemini's ``[{"error": ...}]``, Cloudflare's
    ``{"success": false, "errors": [...]}`` and MiniMax's ``{"base_resp": {"status_code": 1008, ...}}``.
    An ``error`` that is null or empty is none.
    """
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    if payload.get("error"):
        return payload["error"]
    if not _OTHER_ERROR_FIELDS.isdisjoint(payload):
        if payload.get("success") is False and payload.get("errors"):
            return payload["errors"]
        status = payload.get("base_resp")
        if isinstance(status, dict) and status.get("status_code") not in (None, 0, "0"):
            return status
    return payload if payload.get("object") == "error" else None


def decode_response(request: ChatRequest, payload: Any, request_id: Optional[str]) -> Any:
    """Return the value that the caller gets for ``payload``, the decoded JSON of a good response.

    A :class:`ChatCompletion` for chat, completions and responses; a list of floats for the embedding of one
    text; the JSON as it is for everything else.

    Raises:
        UnusableAnswer: the field that the path must have is missing or empty, or the model failed.
        UnfinishedAnswer: it is made in the background, and has not ended yet.
    """
    shape = _shape(request)
    if shape is None:
        return payload
    if not isinstance(payload, dict):
        raise UnusableAnswer(f"is not a JSON object but a {type(payload).__name__}")
    if shape.field == "output":
        _refuse_unfinished(request, payload)
    parts = payload.get(shape.field)
    if not isinstance(parts, shape.kind) or not (parts or shape.may_be_empty):
        raise UnusableAnswer(f"has no {shape.field!r}")
    return shape.decode(request, payload, request_id)


def answering_model(answer: Any) -> Optional[str]:
    """Return the model that an answer, or its JSON, is from by its own account; None where it does not say."""
    model = answer.get("model") if isinstance(answer, dict) else getattr(answer, "model", None)
    return model if isinstance(model, str) else None


def model_and_reason(answer: Any) -> Tuple[Optional[str], Optional[str]]:
    """Return the model that an answer is from, and why it stopped; None where it does not say."""
    return answering_model(answer), getattr(answer, "finish_reason", None)


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
    status = payload.get("status")
    if status == "cancelled":
        message = "it was cancelled at the server before it had ended"
        raise UnusableAnswer(f"has the status {status!r}", {"code": WITHDRAWN, "message": message})
    if status == "failed":
        raise UnusableAnswer(f"has the status {status!r}")
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
        choices=_further_samples(request, payload),
    )


def _further_samples(request: ChatRequest, payload: Dict[str, Any]) -> Tuple[Choice, ...]:
    """Return the answers that the pool has joined to the first (``samples=``), each a response of its own."""
    choices: List[Choice] = []
    bodies = payload.get("samples")
    for body in bodies if isinstance(bodies, list) else ():
        if isinstance(body, dict) and isinstance(body.get("output"), list):
            answer = _response(request, {**body, "samples": None}, None)
            about = answer.finish_reason, answer.tool_calls, answer.reasoning
            choices.append(Choice(len(choices) + 1, answer.text, answer.message, *about))
    return tuple(choices)


def is_over(payload: Mapping[str, Any]) -> bool:
    """Return whether an answer of the Responses API says that it has ended, well or not."""
    return payload.get("status") in ("completed", "failed", "incomplete", "cancelled")


def _refuse_unfinished(request: ChatRequest, payload: Dict[str, Any]) -> None:
    """Refuse answers that are still being made, or that wait for an approval: they are empty yet, and are billed."""
    status = payload.get("status")
    if status in ("queued", "in_progress"):
        problem = f"has the status {status!r}"
        message = (
            "it is made in the background, and was not asked for with background=True: fetch it with "
            "pool.request('/responses/' + id, method='GET')"
        )
        error = {"code": NOT_SUPPORTED, "message": message}
        if payload.get("background") is True or request.body.get("background"):
            raise UnfinishedAnswer(problem, error, payload.get("id"))
        raise UnusableAnswer(problem, error)
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
    return list(map(float, vector)) if isinstance(vector, list) else []


def _json_answer(request: ChatRequest, payload: Dict[str, Any], request_id: Optional[str]) -> Any:
    return payload


class _Shape(NamedTuple):
    field: str
    decode: Callable[[ChatRequest, Dict[str, Any], Optional[str]], Any]
    may_be_empty: bool = False
    kind: type = list


_SHAPES: Mapping[str, _Shape] = {
    CHAT: _Shape("choices", _chat),
    COMPLETIONS: _Shape("choices", _completion),
    RESPONSES: _Shape("output", _response, may_be_empty=True),
    EMBEDDINGS: _Shape("data", _embeddings),
    MODERATIONS: _Shape("results", _json_answer),
    TRANSCRIPTIONS: _Shape("text", _json_answer, may_be_empty=True, kind=str),
    TRANSLATIONS: _Shape("text", _json_answer, may_be_empty=True, kind=str),
    IMAGES: _Shape("data", _json_answer),
    IMAGE_EDITS: _Shape("data", _json_answer),
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
