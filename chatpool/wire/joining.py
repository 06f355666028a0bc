"""The pieces of a streamed answer joined into what a whole answer would have been: chat and completions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, Optional, Tuple

from ..types import ChatChunk, ToolCallDelta, Usage
from .answers import UnusableAnswer, content_text
from .pieces import JoinedObject, JoinedText, index_in
from .reasoning import separate_reasoning
from .tool_calls import CallsJoin
from .usage import said_usage, usage_of

__all__ = ["ChoicesJoin"]

# What belongs to a chunk and not to the answer; "obfuscation" is padding that hides the chunk's length.
_OF_CHUNKS = frozenset({"choices", "error", "object", "obfuscation", "usage"})

_SAID_ONCE = frozenset({"created", "id", "model"})


_FAILED = "error"  # the finish_reason of a choice that has none, at some gateways


class ChoicesJoin:
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
        self._fields = JoinedObject()
        self._message = JoinedObject()
        self._calls = CallsJoin()
        self._thoughts = JoinedText()  # those that are parts of the content (Mistral)
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
