"""Accumulate the pieces of a streamed answer into the body that the whole answer would have had.

Chunks of chat and completions are deltas, which are joined field by field.  The Responses API sends named events
(https://platform.openai.com/docs/api-reference/responses-streaming), of which the last has the whole answer.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..types import ChatChunk, ChatRequest, ToolCallDelta, Usage
from .codec import loads
from .response import UnusableAnswer, content_text, decode_response, separate_reasoning, usage_fields_of, usage_of

__all__ = [
    "ChoiceAccumulator",
    "ObjectAccumulator",
    "ResponseAccumulator",
    "TextAccumulator",
    "ToolCallAccumulator",
    "index_in",
]

_MAX_INDEX = 10**9


# --- chat and completions ------------------------------------------------------------------------------------------

# Fields that belong to a chunk and not to the answer; "obfuscation" is padding that hides the chunk's length.
_CHUNK_FIELDS = frozenset({"choices", "error", "object", "obfuscation", "usage"})

_CONSTANT_FIELDS = frozenset({"created", "id", "model"})


_ERROR_REASON = "error"  # the finish_reason of a choice that failed, at some gateways


class ChoiceAccumulator:
    """Accumulates chunks that have ``choices``.

    Args:
        is_chat: whether they are of ``/chat/completions`` (with ``delta``) or of ``/completions`` (with ``text``).
        expected: how many choices were asked for.

    Attributes:
        begun: whether anything of the answer has come; a role alone is nothing.
        answering: whether any of the answer itself has come; reasoning is not.
    """

    def __init__(self, is_chat: bool, expected: int) -> None:
        self._is_chat = is_chat
        self._expected = expected
        self._fields: Dict[str, Any] = {}
        self._usage: Dict[str, Any] = {}
        self._choices: Dict[int, _ChoiceState] = {}
        self.begun = False
        self.answering = False

    @property
    def done(self) -> bool:
        """True if the answer is whole if the stream ends now: every choice is finished."""
        return len(self._choices) >= self._expected and all(choice.finished for choice in self._choices.values())

    @property
    def settled(self) -> bool:
        """True if every choice is finished and has content, so that nothing but the end is missing.

        A finish_reason without content may come before the answer, as it does where models reason first.
        """
        return self.done and all(choice.answering for choice in self._choices.values())

    final = False  # another event may follow the last finish_reason: usage

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return self._choices[0].text if 0 in self._choices else ""

    def add(self, name: str, payload: Dict[str, Any]) -> ChatChunk:
        """Add an event's JSON; returns the chunk that it is.

        Raises:
            UnusableAnswer: it says that a choice failed.
        """
        fields = self._fields
        for field, value in payload.items():
            if field in _CHUNK_FIELDS or (field in fields and not value):
                continue
            # The first chunk may have an empty id and model (Azure); of other fields the last value counts.
            if field not in _CONSTANT_FIELDS or not fields.get(field):
                fields[field] = value
        usage = self._add_usage(usage_fields_of(payload))
        choices = payload.get("choices")
        if not choices or not isinstance(choices, list):
            return ChatChunk("", None, (), usage, payload)
        chunk = ChatChunk("", None, (), usage, payload, _index_of(choices[0]))
        for choice in choices:
            self._add_choice(choice, chunk)
        return chunk

    def _add_usage(self, fields: Any) -> Optional[Usage]:
        if not fields or not isinstance(fields, dict):
            return None
        if usage_of({"usage": fields}) is None:
            self._usage = self._usage or fields
            return None
        # Some say in the first chunk what was read and in the last what was written, some send zeros with every chunk:
        # a zero does not replace a count.
        self._usage = {**self._usage, **{name: value for name, value in fields.items() if value}}
        return usage_of({"choices": (), "usage": self._usage})

    def _add_choice(self, choice: Any, chunk: ChatChunk) -> None:
        if not isinstance(choice, dict):
            raise UnusableAnswer("has a choice that is not an object")
        index = _index_of(choice)
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _ChoiceState(index, self._is_chat)
        was_finished = state.finished
        text, calls, begins = state.add(choice)
        if state.finish_reason == _ERROR_REASON:
            error = choice.get("error")
            raise UnusableAnswer("has the finish_reason 'error'", error if isinstance(error, dict) else None)
        if choice.get("usage") and chunk.usage is None:
            chunk.usage = self._add_usage(choice["usage"])  # Moonshot's place for it
        self.begun = self.begun or begins
        self.answering = self.answering or state.answering
        if index == 0:
            chunk.text, chunk.tool_calls = text, calls
            chunk.reasoning = state.reasoning
            chunk.finish_reason = state.finish_reason if state.finished and not was_finished else None

    def payload(self) -> Dict[str, Any]:
        """Return the body that the whole answer would have had."""
        choices = [self._choices[index].value() for index in sorted(self._choices)]
        kind = "chat.completion" if self._is_chat else "text_completion"
        body = {"object": kind, **self._fields, "choices": choices}
        if self._usage:
            body["usage"] = self._usage
        return body


def _index_of(choice: Any) -> int:
    return (index_in(choice.get("index")) if isinstance(choice, dict) else None) or 0


_PIECE_FIELDS = frozenset({"delta", "finish_reason", "index", "message", "text", "usage"})

# Fields of the answer itself; the other fields of a delta are reasoning, or say something about the answer.
_ANSWER_FIELDS = frozenset({"audio", "content", "function_call", "images", "refusal", "tool_calls"})
_REASONING_WORDS = ("reason", "think")


# Content of a chunk, by rank; a role is nothing.
_NOTHING, _OTHER_FIELDS, _REASONING, _ANSWER = range(4)


class _ChoiceState:
    """One choice, as far as it has come.

    Attributes:
        index: its place among the choices.
        finish_reason: the last that has come.
        finished: whether it has come, and nothing since.
        answering: whether any of the answer itself has come.
        reasoning: the reasoning in the last piece, "" without any.
    """

    __slots__ = (
        *("_calls", "_fields", "_is_chat", "_message", "_content_reasoning"),
        *("answering", "finish_reason", "finished", "index", "reasoning"),
    )

    def __init__(self, index: int, is_chat: bool) -> None:
        self.index = index
        self.finish_reason: Optional[str] = None
        self.finished = False
        self.answering = False
        self._is_chat = is_chat
        self._fields = ObjectAccumulator()
        self._message = ObjectAccumulator()
        self._calls = ToolCallAccumulator()
        self._content_reasoning = TextAccumulator()  # reasoning in parts of the content (Mistral)
        self.reasoning = ""

    @property
    def text(self) -> str:
        return self._message.text("content")

    def add(self, choice: Dict[str, Any]) -> Tuple[str, Tuple[ToolCallDelta, ...], bool]:
        """Add the next piece; returns its text, its tool calls, and whether there is anything in it at all."""
        for name, value in choice.items():
            if name == "logprobs":
                self._fields.add(name, value)
            elif name not in _PIECE_FIELDS and value is not None:
                self._fields.put(name, value)
        text, calls, rank = self._add_delta(self._delta_of(choice))
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            self.finish_reason = reason
            self.finished = reason != _ERROR_REASON
        elif rank >= _REASONING:
            self.finished = False  # a finish_reason that comes before the end was none
        if rank == _ANSWER:
            self.answering = True
        return text, calls, rank > _NOTHING or self.finished

    def _delta_of(self, choice: Dict[str, Any]) -> Dict[str, Any]:
        if not self._is_chat:
            return {"content": choice.get("text")}
        delta = choice.get("delta")
        if delta is None and not self._message:
            delta = choice.get("message")  # a whole answer sent as if it were a chunk
        return delta if isinstance(delta, dict) else {}

    def _add_delta(self, delta: Dict[str, Any]) -> Tuple[str, Tuple[ToolCallDelta, ...], int]:
        text, rank = "", _NOTHING
        self.reasoning = separate_reasoning(delta) or ""
        calls: Tuple[ToolCallDelta, ...] = ()
        for name, value in delta.items():
            if name == "content" and value is not None:
                text = self._add_content(value)
            elif name == "tool_calls":
                calls = self._calls.add(value)
            else:
                self._message.add(name, value)
            if value:
                is_only_reasoning = name == "content" and not text and self.reasoning
                rank = max(rank, _REASONING if is_only_reasoning else _rank_of(name))
        return text, calls, rank

    def _add_content(self, content: Any) -> str:
        if isinstance(content, str):
            return self._message.add_text("content", content)
        self._content_reasoning.add(separate_reasoning({"content": content}) or "")
        return self._message.add_text("content", content_text(content))

    def value(self) -> Dict[str, Any]:
        body: Dict[str, Any] = {"index": self.index}
        if self._is_chat:
            body["message"] = self._whole_message()
        else:
            body["text"] = self.text
        return {**body, **self._fields.value(), "finish_reason": self.finish_reason}

    def _whole_message(self) -> Dict[str, Any]:
        message = {"role": "assistant", "content": None, **self._message.value()}
        reasoning, calls = str(self._content_reasoning), self._calls.value()
        if reasoning:
            texts = [{"type": "text", "text": self.text}] if self.text else []
            message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}, *texts]
        if calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = calls
        return message


@lru_cache(maxsize=64)
def _rank_of(name: str) -> int:
    """Return the rank of a field of a delta."""
    if name in _ANSWER_FIELDS:
        return _ANSWER
    if any(word in name for word in _REASONING_WORDS):
        return _REASONING
    return _NOTHING if name == "role" else _OTHER_FIELDS


# --- tool calls ----------------------------------------------------------------------------------------------------


class ToolCallAccumulator:
    """Accumulates the tool calls of one choice.

    OpenAI gives each call an ``index`` and an ``id``, and its name once.  Other servers leave out the index or send 0
    for every call, leave the id empty, or repeat the name with every piece; then a new call begins where the arguments
    that have come are a whole object already.
    """

    __slots__ = ("_calls", "_of_id", "_of_index")

    def __init__(self) -> None:
        self._calls: List[ObjectAccumulator] = []
        self._of_index: Dict[Optional[int], int] = {}
        self._of_id: Dict[str, int] = {}

    def add(self, deltas: Any) -> Tuple[ToolCallDelta, ...]:
        """Add the pieces in ``deltas``; returns them, each with the place of its call among the choice's."""
        pieces = deltas if isinstance(deltas, list) else ()
        return tuple(self._add_delta(delta) for delta in pieces if isinstance(delta, dict))

    def value(self) -> List[Dict[str, Any]]:
        """Return the calls so far, as a message has them."""
        return [{"id": "", "type": "function", **call.value()} for call in self._calls]

    def _add_delta(self, delta: Dict[str, Any]) -> ToolCallDelta:
        part = delta.get("function")
        function = part if isinstance(part, dict) else {}
        id_, name, arguments = _text(delta.get("id")), _text(function.get("name")), _json(function.get("arguments"))
        place = self._place_of(_index(delta.get("index")), id_, name, arguments)
        call = self._calls[place]
        known_id, known_name = call.get("id"), _name_of(call)
        for field, value in delta.items():
            if field not in ("index", "function"):
                call.add(field, value)
        shown = _add_function(call.inner("function"), function, arguments) if function else ""
        return ToolCallDelta(place, "" if known_id else id_, "" if known_name else name, shown)

    def _place_of(self, index: Optional[int], id_: str, name: str, arguments: str) -> int:
        """Return the place of the call that a piece belongs to, made where it is a new one."""
        place = self._of_index.get(index, len(self._calls) - 1 if index is None else -1)
        if place >= 0 and self._is_another(self._calls[place], id_, name, arguments):
            place = self._of_id.get(id_, -1) if id_ else -1
        if place < 0:
            place = len(self._calls)
            self._calls.append(ObjectAccumulator())
        self._of_index[index] = place
        if id_:
            self._of_id.setdefault(id_, place)
        return place

    def _is_another(self, call: ObjectAccumulator, id_: str, name: str, arguments: str) -> bool:
        """Return whether a piece belongs to another call than ``call``, the last of its index."""
        known_id, known_name = _text(call.get("id")), _name_of(call)
        if id_ and known_id:
            # Some servers give every piece another id, but no name.
            return id_ != known_id and bool(name or id_ in self._of_id)
        if not name or not known_name:
            return False
        return name != known_name or (arguments.lstrip().startswith("{") and _is_whole(call))


def _add_function(known: ObjectAccumulator, piece: Dict[str, Any], arguments: str) -> str:
    """Add a piece of a function's call; returns the part of the arguments that it completes."""
    shown = ""
    for field, value in piece.items():
        if field == "arguments" and value is not None:
            shown = known.add_text(field, arguments)
        else:
            known.add(field, value)
    return shown


def _name_of(call: ObjectAccumulator) -> str:
    function = call.get("function")
    return _text(function.get("name")) if isinstance(function, ObjectAccumulator) else ""


def _is_whole(call: ObjectAccumulator) -> bool:
    """Return whether the arguments so far are a JSON object."""
    try:
        return isinstance(loads(call.inner("function").text("arguments")), dict)
    except ValueError:
        return False


def _index(stated: Any) -> Optional[int]:
    if isinstance(stated, str) and stated.isascii() and stated.isdigit():
        return int(stated[:9])
    return index_in(stated)


def _json(arguments: Any) -> str:
    """Return arguments as JSON: some servers send the object itself."""
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, (dict, list)) else _text(arguments)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# --- the Responses API ---------------------------------------------------------------------------------------------


class ResponseAccumulator:
    """Accumulates the events up to the one that has the whole answer.

    Attributes:
        begun: whether anything of the answer has come; that it was created is nothing.
        answering: whether any of the answer itself has come; reasoning is not.
    """

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._text = TextAccumulator()
        self._arguments: Dict[int, TextAccumulator] = {}
        self._calls: Dict[int, int] = {}
        self._items: Dict[int, Any] = {}
        self._reasoning_place: Any = None  # of its last piece
        self._response: Optional[Dict[str, Any]] = None
        self.begun = False
        self.answering = False

    @property
    def done(self) -> bool:
        """True if the whole answer has come."""
        return self._response is not None

    final = settled = done

    @property
    def text(self) -> str:
        """The text so far."""
        return str(self._text)

    def add(self, name: str, payload: Dict[str, Any]) -> ChatChunk:
        """Add the JSON of an event called ``name``; returns the chunk that it is.

        Raises:
            UnusableAnswer: it says that the model failed.
        """
        kind = payload.get("type")
        kind = kind if isinstance(kind, str) else name
        chunk = ChatChunk(raw=payload)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, payload, chunk)
        is_delta = kind.endswith(".delta")
        self.begun = self.begun or self.done or is_delta or bool(chunk.tool_calls)
        self.answering = self.answering or (is_delta and "reasoning" not in kind) or bool(chunk.tool_calls)
        return chunk

    def payload(self) -> Dict[str, Any]:
        """Return the body of the whole answer."""
        return self._response or {}

    def _text_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            chunk.text = self._text.add(delta)

    def _reasoning_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            place = payload.get("output_index"), payload.get("summary_index")
            separator = "\n\n" if self._reasoning_place not in (None, place) else ""  # as in the whole answer
            chunk.reasoning, self._reasoning_place = separator + delta, place

    def _item_added(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        item = payload.get("item")
        if isinstance(item, dict) and item.get("type") == "function_call":
            texts = (_text(item.get(name)) for name in ("call_id", "name", "arguments"))
            chunk.tool_calls = (ToolCallDelta(self._place_of(payload), *texts),)

    def _arguments_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            place = self._place_of(payload)
            arguments = self._arguments.setdefault(place, TextAccumulator())
            chunk.tool_calls = (ToolCallDelta(place, arguments=arguments.add(delta)),)

    def _place_of(self, payload: Mapping[str, Any]) -> int:
        """Return the place of the tool call that an event is about among the calls, not among all output items."""
        return self._calls.setdefault(index_in(payload.get("output_index")) or 0, len(self._calls))

    def _item_done(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        index = index_in(payload.get("output_index"))
        self._items[len(self._items) if index is None else index] = payload.get("item")

    def _ended(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        response = _response_in(payload)
        if not response.get("output") and self._items:
            # Some servers leave out of the whole answer the items that they have sent in parts.
            response = {**response, "output": [self._items[index] for index in sorted(self._items)]}
        completion = decode_response(self._request, response, None)
        chunk.finish_reason, chunk.usage = completion.finish_reason, completion.usage
        self._response = response

    def _failed(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        error = _response_in(payload).get("error")
        raise UnusableAnswer("has the status 'failed'", error if isinstance(error, dict) else None)


def _response_in(payload: Mapping[str, Any]) -> Dict[str, Any]:
    response = payload.get("response")
    if not isinstance(response, dict):
        raise UnusableAnswer("ends without the whole response")
    return response


_HANDLERS: Mapping[str, Callable[[ResponseAccumulator, Mapping[str, Any], ChatChunk], None]] = {
    "response.output_text.delta": ResponseAccumulator._text_delta,
    "response.reasoning_text.delta": ResponseAccumulator._reasoning_delta,
    "response.reasoning_summary_text.delta": ResponseAccumulator._reasoning_delta,
    "response.reasoning.delta": ResponseAccumulator._reasoning_delta,  # of some months of 2025
    "response.reasoning_summary.delta": ResponseAccumulator._reasoning_delta,
    "response.output_item.added": ResponseAccumulator._item_added,
    "response.output_item.done": ResponseAccumulator._item_done,
    "response.function_call_arguments.delta": ResponseAccumulator._arguments_delta,
    "response.completed": ResponseAccumulator._ended,
    "response.incomplete": ResponseAccumulator._ended,
    "response.failed": ResponseAccumulator._failed,
}


# --- objects and texts ---------------------------------------------------------------------------------------------

# Sent once, or again and again, but never in pieces.
_WHOLE_FIELDS = frozenset({"format", "id", "name", "role", "type"})


class ObjectAccumulator:
    """A JSON object whose texts come in pieces."""

    __slots__ = ("_others", "_texts")

    def __init__(self) -> None:
        self._texts: Dict[str, TextAccumulator] = {}
        self._others: Dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._texts or self._others)

    def add(self, name: str, value: Any) -> None:
        """Add the next piece of a field."""
        if isinstance(value, str) and name not in _WHOLE_FIELDS:
            self.add_text(name, value)
        elif isinstance(value, dict):
            inner = self.inner(name)
            for key, part in value.items():
                inner.add(key, part)
        elif isinstance(value, list) and isinstance(self._others.get(name), list):
            self._others[name] += value
        elif name in _WHOLE_FIELDS:
            self._others[name] = self._others.get(name) or value
        elif value is not None or name not in self._others:
            self._others[name] = list(value) if isinstance(value, list) else value

    def add_text(self, name: str, piece: str) -> str:
        """Add the next piece of a text; returns the same as :meth:`TextAccumulator.add`."""
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = TextAccumulator()
        return text.add(piece)

    def put(self, name: str, value: Any) -> None:
        """Set a field to its value in the last piece."""
        self._others[name] = value

    def inner(self, name: str) -> ObjectAccumulator:
        """Return the object that a field holds, made where there is none."""
        value = self._others.get(name)
        if not isinstance(value, ObjectAccumulator):
            value = self._others[name] = ObjectAccumulator()
        return value

    def text(self, name: str) -> str:
        """Return the text of a field so far."""
        return str(self._texts[name]) if name in self._texts else ""

    def get(self, name: str) -> Any:
        """Return a field that does not come in pieces."""
        return self._others.get(name)

    def value(self) -> Dict[str, Any]:
        """Return the object so far."""
        others = {
            name: value.value() if isinstance(value, ObjectAccumulator) else value
            for name, value in self._others.items()
        }
        return {**others, **{name: str(text) for name, text in self._texts.items()}}


class TextAccumulator:
    """A text that comes in pieces.

    A character beyond the first 65,536 is two escapes in JSON, a surrogate pair, and some servers send the halves in
    two pieces: half a pair at the end of a piece comes out with the next one.
    """

    __slots__ = ("_half_pair", "_pieces")

    def __init__(self) -> None:
        self._pieces: List[str] = []  # a list, so that a long text is not copied with each piece
        self._half_pair = ""

    def add(self, piece: str) -> str:
        """Add the next piece; returns the part of the text that it completes."""
        if not piece:
            return ""
        if self._half_pair:
            piece, self._half_pair = _joined_pair(self._half_pair + piece), ""
        if "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half_pair = piece[:-1], piece[-1]
        self._pieces.append(piece)
        return piece

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] + self._half_pair if self._pieces else ""


def _joined_pair(text: str) -> str:
    """Return ``text``, which begins with the first half of a surrogate pair, with both halves as one character."""
    if not "\udc00" <= text[1] <= "\udfff":
        return text
    return chr(0x10000 + ((ord(text[0]) - 0xD800) << 10) + (ord(text[1]) - 0xDC00)) + text[2:]


def index_in(stated: Any) -> Optional[int]:
    """Return a place among choices, calls or vectors as a server states it; None where that is no such number."""
    return stated if isinstance(stated, int) and -_MAX_INDEX <= stated <= _MAX_INDEX else None
