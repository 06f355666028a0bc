"""The pieces of a streamed answer joined into what a whole answer would have been: chat and completions."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..types import ChatChunk, ToolCallDelta, Usage
from .answers import UnusableAnswer, content_text, usage_of

__all__ = ["ChoicesJoin"]

# What belongs to a chunk and not to the answer; "obfuscation" is padding that hides the chunk's length.
_OF_CHUNKS = frozenset({"choices", "error", "object", "obfuscation", "usage"})

_SAID_ONCE = frozenset({"created", "id", "model"})


class ChoicesJoin:
    """Joins chunks that have ``choices``.

    Args:
        is_chat: whether they are of ``/chat/completions`` (with ``delta``) or of ``/completions`` (with ``text``).
        expected: how many choices were asked for.

    Attributes:
        begun: whether anything of the answer has come; a role alone is nothing.
    """

    def __init__(self, is_chat: bool, expected: int) -> None:
        self._is_chat = is_chat
        self._expected = expected
        self._fields: Dict[str, Any] = {}
        self._usage: Any = None
        self._choices: Dict[int, _Choice] = {}
        self._unfinished = expected
        self.begun = False

    @property
    def whole(self) -> bool:
        """Whether every choice has a finish_reason."""
        return self._unfinished <= 0 and all(choice.finish_reason for choice in self._choices.values())

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
        usage = self._take_usage(payload)
        choices = payload.get("choices")
        if not choices or not isinstance(choices, list):
            return ChatChunk("", None, (), usage, payload)
        chunk = ChatChunk("", None, (), usage, payload, _index_of(choices[0]))
        for choice in choices:
            self._take_choice(choice, chunk)
        return chunk

    def _take_usage(self, payload: Mapping[str, Any]) -> Optional[Usage]:
        stated = payload.get("usage")
        if not stated:
            return None
        self._usage = stated
        return usage_of(payload)

    def _take_choice(self, choice: Any, chunk: ChatChunk) -> None:
        if not isinstance(choice, dict):
            raise UnusableAnswer("has a choice that is not an object")
        index = _index_of(choice)
        joined = self._choices.get(index)
        if joined is None:
            joined = self._choices[index] = _Choice(index, self._is_chat)
        was_finished = joined.finish_reason is not None
        text, calls, is_content = joined.take(choice)
        if joined.finish_reason == "error":
            error = choice.get("error")
            raise UnusableAnswer("has the finish_reason 'error'", error if isinstance(error, dict) else None)
        self._unfinished -= joined.finish_reason is not None and not was_finished
        self.begun = self.begun or is_content
        if index == 0:
            chunk.text, chunk.tool_calls = text, calls
            chunk.finish_reason = None if was_finished else joined.finish_reason

    def payload(self) -> Dict[str, Any]:
        """The body of a whole answer that says the same."""
        choices = [self._choices[index].whole() for index in sorted(self._choices)]
        kind = "chat.completion" if self._is_chat else "text_completion"
        whole = {"object": kind, **self._fields, "choices": choices}
        if self._usage is not None:
            whole["usage"] = self._usage
        return whole


def _index_of(choice: Any) -> int:
    index = choice.get("index") if isinstance(choice, dict) else 0
    return index if isinstance(index, int) else 0


_OF_PIECES = frozenset({"delta", "finish_reason", "index", "message", "text"})


class _Choice:
    """One choice, so far."""

    __slots__ = ("_calls", "_fields", "_is_chat", "_message", "finish_reason", "index")

    def __init__(self, index: int, is_chat: bool) -> None:
        self.index = index
        self.finish_reason: Optional[str] = None
        self._is_chat = is_chat
        self._fields = _Joined()
        self._message = _Joined()
        self._calls = _Calls()

    @property
    def text(self) -> str:
        return self._message.text("content")

    def take(self, choice: Dict[str, Any]) -> Tuple[str, Tuple[ToolCallDelta, ...], bool]:
        """Text and tool calls of the next piece, and whether it is a piece of the answer at all."""
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            self.finish_reason = reason
        for name, value in choice.items():
            if name == "logprobs":
                self._fields.add(name, value)
            elif name not in _OF_PIECES and value is not None:
                self._fields.put(name, value)
        text, calls, is_content = self._take_delta(self._delta_of(choice))
        return text, calls, is_content or bool(self.finish_reason)

    def _delta_of(self, choice: Dict[str, Any]) -> Dict[str, Any]:
        if not self._is_chat:
            return {"content": choice.get("text")}
        delta = choice.get("delta")
        if delta is None and not self._message:
            delta = choice.get("message")  # a whole answer sent as if it were a chunk
        return delta if isinstance(delta, dict) else {}

    def _take_delta(self, delta: Dict[str, Any]) -> Tuple[str, Tuple[ToolCallDelta, ...], bool]:
        text, is_content = "", False
        calls: Tuple[ToolCallDelta, ...] = ()
        for name, value in delta.items():
            if name == "content":
                text = value if isinstance(value, str) else content_text(value)
                self._message.add(name, text if value is not None else None)
            elif name == "tool_calls":
                calls = self._calls.take(value)
            else:
                self._message.add(name, value)
            is_content = is_content or (bool(value) and name != "role")
        return text, calls, is_content

    def whole(self) -> Dict[str, Any]:
        body: Dict[str, Any] = {"index": self.index}
        if self._is_chat:
            body["message"] = self._whole_message()
        else:
            body["text"] = self.text
        return {**body, **self._fields.whole(), "finish_reason": self.finish_reason}

    def _whole_message(self) -> Dict[str, Any]:
        message = {"role": "assistant", "content": None, **self._message.whole()}
        calls = self._calls.whole()
        if calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = calls
        return message


# Said once, or again and again, but never in pieces.
_NOT_IN_PIECES = frozenset({"format", "id", "name", "role", "type"})


class _Joined:
    """An object whose texts come in pieces."""

    __slots__ = ("_others", "_texts")

    def __init__(self) -> None:
        # Lists, so that a long text is not copied with each piece.
        self._texts: Dict[str, List[str]] = {}
        self._others: Dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._texts or self._others)

    def add(self, name: str, value: Any) -> None:
        """Add the next piece of a field."""
        if isinstance(value, str) and name not in _NOT_IN_PIECES:
            self._texts.setdefault(name, []).append(value)
        elif isinstance(value, dict):
            inner = self._others.get(name)
            if not isinstance(inner, _Joined):
                inner = self._others[name] = _Joined()
            for key, part in value.items():
                inner.add(key, part)
        elif isinstance(value, list) and isinstance(self._others.get(name), list):
            self._others[name] += value
        elif name in _NOT_IN_PIECES:
            self._others[name] = self._others.get(name) or value
        elif value is not None or name not in self._others:
            self._others[name] = list(value) if isinstance(value, list) else value

    def put(self, name: str, value: Any) -> None:
        """Set a field to what the last piece says of it."""
        self._others[name] = value

    def text(self, name: str) -> str:
        pieces = self._texts.get(name)
        if not pieces:
            return ""
        if len(pieces) > 1:
            pieces[:] = ["".join(pieces)]
        return pieces[0]

    def get(self, name: str) -> Any:
        """A field that does not come in pieces."""
        return self._others.get(name)

    def whole(self) -> Dict[str, Any]:
        others = {name: value.whole() if isinstance(value, _Joined) else value for name, value in self._others.items()}
        return {**others, **{name: self.text(name) for name in self._texts}}


class _Calls:
    """The tool calls of one choice."""

    __slots__ = ("_calls", "_places")

    def __init__(self) -> None:
        self._calls: List[_Joined] = []
        self._places: Dict[Optional[int], int] = {}

    def take(self, deltas: Any) -> Tuple[ToolCallDelta, ...]:
        given = deltas if isinstance(deltas, list) else ()
        return tuple(self._take_one(delta) for delta in given if isinstance(delta, dict))

    def _take_one(self, delta: Dict[str, Any]) -> ToolCallDelta:
        part = delta.get("function")
        function = part if isinstance(part, dict) else {}
        place = self._place_of(delta, function)
        call = self._calls[place]
        known = call.get("function")
        id_ = "" if call.get("id") else _text(delta.get("id"))
        name = "" if isinstance(known, _Joined) and known.get("name") else _text(function.get("name"))
        for field, value in delta.items():
            if field != "index":
                call.add(field, value)
        return ToolCallDelta(place, id_, name, _text(function.get("arguments")))

    def _place_of(self, delta: Dict[str, Any], function: Dict[str, Any]) -> int:
        """Which call the piece belongs to, by ``index``; some servers leave it out, others say 0 for every call."""
        stated = delta.get("index")
        index = stated if isinstance(stated, int) else None
        place = self._places.get(index, len(self._calls) - 1 if index is None else -1)
        known = self._calls[place].get("id") if place >= 0 else None
        is_another = bool(known and delta.get("id") and delta["id"] != known and function.get("name"))
        if place < 0 or is_another:
            place = len(self._calls)
            self._calls.append(_Joined())
        self._places[index] = place
        return place

    def whole(self) -> List[Dict[str, Any]]:
        return [{"id": "", "type": "function", **call.whole()} for call in self._calls]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
