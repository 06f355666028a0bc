"""The pieces of a streamed answer joined into what a whole answer would have been: chat and completions.

Texts and objects that come in pieces.

The tool calls of a streamed answer, of their pieces.

The events of a streamed answer of the Responses API.

Their names: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..types import ChatChunk, ChatRequest, ToolCallDelta, Usage
from .codec import loads
from .reasoning import separate_reasoning
from .response import UnusableAnswer, content_text, decode_response
from .usage import said_usage, usage_of

__all__ = [
    "ChoiceAccumulator",
    "ObjectAccumulator",
    "ResponseAccumulator",
    "TextAccumulator",
    "ToolCallAccumulator",
    "index_in",
]


_LARGEST_INDEX = 10**9


def index_in(stated: Any) -> Optional[int]:
    """A place among choices, calls or vectors as a server states it; None for what is no such number."""
    return stated if isinstance(stated, int) and -_LARGEST_INDEX <= stated <= _LARGEST_INDEX else None


class TextAccumulator:
    """A text that comes in pieces.

    A character beyond the first 65,536 is two escapes in JSON, a surrogate pair, and some servers put the halves into
    two pieces: half a pair at the end of a piece is shown with the next one.
    """

    __slots__ = ("_half", "_pieces")

    def __init__(self) -> None:
        self._pieces: List[str] = []  # a list, so that a long text is not copied with each piece
        self._half = ""

    def add(self, piece: str) -> str:
        """Add the next piece; returns what of the text it completes, which makes the whole text piece by piece."""
        if not piece:
            return ""
        if self._half:
            piece, self._half = _paired(self._half + piece), ""
        if "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        self._pieces.append(piece)
        return piece

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] + self._half if self._pieces else ""


def _paired(text: str) -> str:
    """``text``, which begins with the first half of a pair, with the character that both halves are."""
    if not "\udc00" <= text[1] <= "\udfff":
        return text
    return chr(0x10000 + ((ord(text[0]) - 0xD800) << 10) + (ord(text[1]) - 0xDC00)) + text[2:]


# Said once, or again and again, but never in pieces.
_NOT_IN_PIECES = frozenset({"format", "id", "name", "role", "type"})


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
        if isinstance(value, str) and name not in _NOT_IN_PIECES:
            self.add_text(name, value)
        elif isinstance(value, dict):
            inner = self.inner(name)
            for key, part in value.items():
                inner.add(key, part)
        elif isinstance(value, list) and isinstance(self._others.get(name), list):
            self._others[name] += value
        elif name in _NOT_IN_PIECES:
            self._others[name] = self._others.get(name) or value
        elif value is not None or name not in self._others:
            self._others[name] = list(value) if isinstance(value, list) else value

    def add_text(self, name: str, piece: str) -> str:
        """Add the next piece of a text; returns what :meth:`TextAccumulator.add` does."""
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = TextAccumulator()
        return text.add(piece)

    def put(self, name: str, value: Any) -> None:
        """Set a field to what the last piece says of it."""
        self._others[name] = value

    def inner(self, name: str) -> ObjectAccumulator:
        """The object that a field holds, made where there is none."""
        found = self._others.get(name)
        if not isinstance(found, ObjectAccumulator):
            found = self._others[name] = ObjectAccumulator()
        return found

    def text(self, name: str) -> str:
        """The text of a field so far."""
        return str(self._texts[name]) if name in self._texts else ""

    def get(self, name: str) -> Any:
        """A field that does not come in pieces."""
        return self._others.get(name)

    def whole(self) -> Dict[str, Any]:
        """The object so far."""
        others = {
            name: value.whole() if isinstance(value, ObjectAccumulator) else value
            for name, value in self._others.items()
        }
        return {**others, **{name: str(text) for name, text in self._texts.items()}}


class ToolCallAccumulator:
    """The tool calls of one choice.

    OpenAI gives each call an ``index`` and an ``id``, and its name once.  Other servers leave out the index or say 0 of
    every call, leave the id empty, or repeat the name with every piece; then it counts whether the arguments that have
    come are a whole object already.
    """

    __slots__ = ("_calls", "_of_id", "_of_index")

    def __init__(self) -> None:
        self._calls: List[ObjectAccumulator] = []
        self._of_index: Dict[Optional[int], int] = {}
        self._of_id: Dict[str, int] = {}

    def take(self, deltas: Any) -> Tuple[ToolCallDelta, ...]:
        """The pieces in ``deltas``, each with the place of its call among the choice's."""
        given = deltas if isinstance(deltas, list) else ()
        return tuple(self._take_one(delta) for delta in given if isinstance(delta, dict))

    def whole(self) -> List[Dict[str, Any]]:
        """The calls so far, as a message has them."""
        return [{"id": "", "type": "function", **call.whole()} for call in self._calls]

    def _take_one(self, delta: Dict[str, Any]) -> ToolCallDelta:
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
        """Which call a piece belongs to."""
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
        """Whether a piece belongs to another call than ``call``, the last of its index."""
        known_id, known_name = _text(call.get("id")), _name_of(call)
        if id_ and known_id:
            # Some servers give every piece an id of its own, but no name.
            return id_ != known_id and bool(name or id_ in self._of_id)
        if not name or not known_name:
            return False
        return name != known_name or (arguments.lstrip().startswith("{") and _is_whole(call))


def _add_function(known: ObjectAccumulator, piece: Dict[str, Any], arguments: str) -> str:
    """Add a piece of a function's call; returns what of the arguments it completes."""
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
    """Whether the arguments so far are a JSON object."""
    try:
        return isinstance(loads(call.inner("function").text("arguments")), dict)
    except ValueError:
        return False


def _index(stated: Any) -> Optional[int]:
    if isinstance(stated, str) and stated.isascii() and stated.isdigit():
        return int(stated[:9])
    return index_in(stated)


def _json(arguments: Any) -> str:
    """Arguments as JSON: some servers send the object itself."""
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, (dict, list)) else _text(arguments)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# What belongs to a chunk and not to the answer; "obfuscation" is padding that hides the chunk's length.
_OF_CHUNKS = frozenset({"choices", "error", "object", "obfuscation", "usage"})

_SAID_ONCE = frozenset({"created", "id", "model"})


_FAILED = "error"  # the finish_reason of a choice that has none, at some gateways


class ChoiceAccumulator:
    """Joins chunks that have ``choices``.

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
        self._choices: Dict[int, _Choice] = {}
        self.begun = False
        self.answering = False

    @property
    def whole(self) -> bool:
        """Whether every choice is finished, if the end comes now."""
        return len(self._choices) >= self._expected and all(choice.finished for choice in self._choices.values())

    @property
    def settled(self) -> bool:
        """Whether every choice is finished and has content, so that nothing but an end need be missing.

        A reason without any may come before the answer, as it does where models reason first.
        """
        return self.whole and all(choice.answering for choice in self._choices.values())

    # Another event may follow the last finish_reason: usage.
    final = False

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return self._choices[0].text if 0 in self._choices else ""

    def take(self, name: str, payload: Dict[str, Any]) -> ChatChunk:
        """The chunk that ``payload``, an event's JSON, is.

        Raises:
            UnusableAnswer: it says that a choice failed.
        """
        fields = self._fields
        for field, value in payload.items():
            if field in _OF_CHUNKS or (field in fields and not value):
                continue
            # The first chunk may have an empty id and model (Azure); what else there is, is best said last.
            if field not in _SAID_ONCE or not fields.get(field):
                fields[field] = value
        usage = self._take_usage(said_usage(payload))
        choices = payload.get("choices")
        if not choices or not isinstance(choices, list):
            return ChatChunk("", None, (), usage, payload)
        chunk = ChatChunk("", None, (), usage, payload, _index_of(choices[0]))
        for choice in choices:
            self._take_choice(choice, chunk)
        return chunk

    def _take_usage(self, stated: Any) -> Optional[Usage]:
        if not stated or not isinstance(stated, dict):
            return None
        if usage_of({"usage": stated}) is None:
            self._usage = self._usage or stated
            return None
        # Some say in the first chunk what was read and in the last what was written, some send zeros with every chunk:
        # what says nothing does not take the place of a count.
        self._usage = {**self._usage, **{name: value for name, value in stated.items() if value}}
        return usage_of({"choices": (), "usage": self._usage})

    def _take_choice(self, choice: Any, chunk: ChatChunk) -> None:
        if not isinstance(choice, dict):
            raise UnusableAnswer("has a choice that is not an object")
        index = _index_of(choice)
        joined = self._choices.get(index)
        if joined is None:
            joined = self._choices[index] = _Choice(index, self._is_chat)
        was_finished = joined.finished
        text, calls, begins = joined.take(choice)
        if joined.finish_reason == _FAILED:
            error = choice.get("error")
            raise UnusableAnswer("has the finish_reason 'error'", error if isinstance(error, dict) else None)
        if choice.get("usage") and chunk.usage is None:
            chunk.usage = self._take_usage(choice["usage"])  # Moonshot's place for it
        self.begun = self.begun or begins
        self.answering = self.answering or joined.answering
        if index == 0:
            chunk.text, chunk.tool_calls = text, calls
            chunk.reasoning = joined.reasoning
            chunk.finish_reason = joined.finish_reason if joined.finished and not was_finished else None

    def payload(self) -> Dict[str, Any]:
        """The body of a whole answer that says the same."""
        choices = [self._choices[index].whole() for index in sorted(self._choices)]
        kind = "chat.completion" if self._is_chat else "text_completion"
        whole = {"object": kind, **self._fields, "choices": choices}
        if self._usage:
            whole["usage"] = self._usage
        return whole


def _index_of(choice: Any) -> int:
    return (index_in(choice.get("index")) if isinstance(choice, dict) else None) or 0


_OF_PIECES = frozenset({"delta", "finish_reason", "index", "message", "text", "usage"})

# What an answer is made of; the other fields of a delta are reasoning, or say something about the answer.
_ANSWER = frozenset({"audio", "content", "function_call", "images", "refusal", "tool_calls"})
_REASONING = ("reason", "think")


# How much a chunk brings to a choice; a role is nothing.
_NOTHING, _SOMETHING, _SOME_REASONING, _SOME_ANSWER = range(4)


class _Choice:
    """One choice, so far.

    Attributes:
        index: its place among the choices.
        finish_reason: the last that was said.
        finished: whether it was said, and nothing has come since.
        answering: whether any of the answer itself has come.
        reasoning: what the last piece has brought of the reasoning, "" without any.
    """

    __slots__ = (
        *("_calls", "_fields", "_is_chat", "_message", "_thoughts"),
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
        self._thoughts = TextAccumulator()  # those that are parts of the content (Mistral)
        self.reasoning = ""

    @property
    def text(self) -> str:
        return self._message.text("content")

    def take(self, choice: Dict[str, Any]) -> Tuple[str, Tuple[ToolCallDelta, ...], bool]:
        """Text and tool calls of the next piece, and whether it brings anything at all."""
        for name, value in choice.items():
            if name == "logprobs":
                self._fields.add(name, value)
            elif name not in _OF_PIECES and value is not None:
                self._fields.put(name, value)
        text, calls, brings = self._take_delta(self._delta_of(choice))
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            self.finish_reason = reason
            self.finished = reason != _FAILED
        elif brings >= _SOME_REASONING:
            self.finished = False  # a reason that comes before the end was none
        if brings == _SOME_ANSWER:
            self.answering = True
        return text, calls, brings > _NOTHING or self.finished

    def _delta_of(self, choice: Dict[str, Any]) -> Dict[str, Any]:
        if not self._is_chat:
            return {"content": choice.get("text")}
        delta = choice.get("delta")
        if delta is None and not self._message:
            delta = choice.get("message")  # a whole answer sent as if it were a chunk
        return delta if isinstance(delta, dict) else {}

    def _take_delta(self, delta: Dict[str, Any]) -> Tuple[str, Tuple[ToolCallDelta, ...], int]:
        text, brings = "", _NOTHING
        self.reasoning = separate_reasoning(delta) or ""
        calls: Tuple[ToolCallDelta, ...] = ()
        for name, value in delta.items():
            if name == "content" and value is not None:
                text = self._take_content(value)
            elif name == "tool_calls":
                calls = self._calls.take(value)
            else:
                self._message.add(name, value)
            if value:
                only_thoughts = name == "content" and not text and self.reasoning
                brings = max(brings, _SOME_REASONING if only_thoughts else _weight_of(name))
        return text, calls, brings

    def _take_content(self, content: Any) -> str:
        if isinstance(content, str):
            return self._message.add_text("content", content)
        self._thoughts.add(separate_reasoning({"content": content}) or "")
        return self._message.add_text("content", content_text(content))

    def whole(self) -> Dict[str, Any]:
        body: Dict[str, Any] = {"index": self.index}
        if self._is_chat:
            body["message"] = self._whole_message()
        else:
            body["text"] = self.text
        return {**body, **self._fields.whole(), "finish_reason": self.finish_reason}

    def _whole_message(self) -> Dict[str, Any]:
        message = {"role": "assistant", "content": None, **self._message.whole()}
        thoughts, calls = str(self._thoughts), self._calls.whole()
        if thoughts:
            said = [{"type": "text", "text": self.text}] if self.text else []
            message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": thoughts}]}, *said]
        if calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = calls
        return message


@lru_cache(maxsize=64)
def _weight_of(name: str) -> int:
    """How much a field of a delta brings."""
    if name in _ANSWER:
        return _SOME_ANSWER
    if any(word in name for word in _REASONING):
        return _SOME_REASONING
    return _NOTHING if name == "role" else _SOMETHING


class ResponseAccumulator:
    """Follows the events up to the one that holds the whole answer.

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
        self._reasoning_of: Any = None  # the place of the last piece of reasoning
        self._response: Optional[Dict[str, Any]] = None
        self.begun = False
        self.answering = False

    @property
    def whole(self) -> bool:
        """Whether the whole answer has come."""
        return self._response is not None

    final = settled = whole

    @property
    def text(self) -> str:
        """The text so far."""
        return str(self._text)

    def take(self, name: str, payload: Dict[str, Any]) -> ChatChunk:
        """The chunk that ``payload``, the JSON of an event called ``name``, is.

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
        self.begun = self.begun or self.whole or is_delta or bool(chunk.tool_calls)
        self.answering = self.answering or (is_delta and "reasoning" not in kind) or bool(chunk.tool_calls)
        return chunk

    def payload(self) -> Dict[str, Any]:
        """The body of a whole answer that says the same."""
        return self._response or {}

    def _text_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            chunk.text = self._text.add(delta)

    def _reasoning_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            place = payload.get("output_index"), payload.get("summary_index")
            apart = "\n\n" if self._reasoning_of not in (None, place) else ""  # as in the whole answer
            chunk.reasoning, self._reasoning_of = apart + delta, place

    def _item_added(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        item = payload.get("item")
        if isinstance(item, dict) and item.get("type") == "function_call":
            said = (item.get(name) for name in ("call_id", "name", "arguments"))
            texts = (text if isinstance(text, str) else "" for text in said)
            chunk.tool_calls = (ToolCallDelta(self._place_of(payload), *texts),)

    def _arguments_delta(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str):
            place = self._place_of(payload)
            arguments = self._arguments.setdefault(place, TextAccumulator())
            chunk.tool_calls = (ToolCallDelta(place, arguments=arguments.add(delta)),)

    def _place_of(self, payload: Mapping[str, Any]) -> int:
        """Which tool call an event is about: its place among the calls, not among all that the model puts out."""
        return self._calls.setdefault(index_in(payload.get("output_index")) or 0, len(self._calls))

    def _item_done(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        index = index_in(payload.get("output_index"))
        self._items[len(self._items) if index is None else index] = payload.get("item")

    def _ended(self, payload: Mapping[str, Any], chunk: ChatChunk) -> None:
        response = _response_in(payload)
        if not response.get("output") and self._items:
            # Some servers leave out of the whole answer what they have sent in parts.
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
