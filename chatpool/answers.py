"""Answers of a model, whole or in pieces: values.  Import them from :mod:`chatpool.types`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, Generic, List, Mapping, Optional, Tuple

from ._typing import ParsedT

__all__ = ["ChatChunk", "ChatCompletion", "Choice", "ToolCall", "ToolCallDelta", "Usage"]


@dataclass(frozen=True)
class Usage:
    """Tokens that one answer, or the sum of many, used.

    Attributes:
        prompt_tokens: tokens read (``input_tokens`` of the Responses API).
        completion_tokens: tokens written (``output_tokens`` of the Responses API).
        total_tokens: both.
        cached_tokens: the part of ``prompt_tokens`` that came from the server's prompt cache.
        reasoning_tokens: the part of ``completion_tokens`` that the model thought with, where the server says so.
        cost: the money that the server says it took, in its currency; None where it does not say, and in a sum where it
            did not say so of all.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Optional[float] = None

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self._cost_with(other),
        )

    def _cost_with(self, other: Usage) -> Optional[float]:
        if self.cost is not None and other.cost is not None:
            return self.cost + other.cost
        known, unknown = (other, self) if self.cost is None else (self, other)
        return None if unknown._has_tokens else known.cost

    @property
    def _has_tokens(self) -> bool:
        return bool(self.prompt_tokens or self.completion_tokens or self.total_tokens)


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool that the model asks for.

    Attributes:
        id: the id that the tool's answer must refer to (``tool_call_id``).
        name: the function's name.
        arguments_json: its arguments as the model wrote them, normally a JSON object.
    """

    id: str
    name: str
    arguments_json: str

    @property
    def arguments(self) -> Any:
        """The arguments, decoded on each access: a dict, if the model wrote what it was asked for.

        Raises:
            ValueError: the model wrote something that is not JSON; the message names the tool.
        """
        try:
            return json.loads(self.arguments_json or "{}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the arguments for the tool {self.name!r} are not JSON: {error}") from error


class Choice:
    """One of the answers to a request with ``n=``.  ``str(choice)`` is its text.

    Attributes:
        index: its place among them, from 0.
        text: its text, always a str.
        message: it as a message dict.
        finish_reason: why the model stopped.
        tool_calls: the tools the model wants called.
        reasoning: the model's account of its reasoning, None without one.
        parsed: value that ``parse=`` has made of the text; None where it could not.
    """

    __slots__ = ("finish_reason", "index", "message", "parsed", "reasoning", "text", "tool_calls")

    def __init__(
        self,
        index: int,
        text: str,
        message: Dict[str, Any],
        finish_reason: Optional[str] = None,
        tool_calls: Tuple[ToolCall, ...] = (),
        reasoning: Optional[str] = None,
        parsed: Any = None,
    ) -> None:
        self.index = index
        self.text = text
        self.message = message
        self.finish_reason = finish_reason
        self.tool_calls = tool_calls
        self.reasoning = reasoning
        self.parsed = parsed

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Choice({self.index}, {self.text!r}, finish_reason={self.finish_reason!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Choice):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # holds a dict


class ChatCompletion(Generic[ParsedT]):
    """A model's answer.  ``str(completion)`` is its text.

    ``ChatCompletion[City]`` is one whose ``parsed`` is a ``City``, to type checkers.

    Attributes:
        text: the answer's text, always a str ("" for an answer that only calls tools).
        message: the answer as a message dict, ready to be appended to a conversation.
        finish_reason: why the model stopped: ``"stop"``, ``"length"``, ``"tool_calls"``, ... or None.
        usage: tokens used, None when the server did not say.
        model: the model that answered, by its own account.
        id: the answer's id.
        request_id: the server's ``x-request-id``.
        tool_calls: the tools the model wants called, empty without any.
        parsed: the text as a value of another type; None unless something has made one of it.
    """

    __slots__ = (
        "_cached",
        "_choices",
        "_fallback",
        "_raw",
        "_reasoning",
        "finish_reason",
        "id",
        "message",
        "model",
        "parsed",
        "request_id",
        "text",
        "tool_calls",
        "usage",
    )

    def __init__(
        self,
        *,
        text: str,
        message: Dict[str, Any],
        finish_reason: Optional[str] = None,
        usage: Optional[Usage] = None,
        model: Optional[str] = None,
        id: Optional[str] = None,  # noqa: A002 - the API's own name for it
        request_id: Optional[str] = None,
        tool_calls: Tuple[ToolCall, ...] = (),
        parsed: Optional[ParsedT] = None,
        raw: Any = None,
        reasoning: Optional[str] = None,
        choices: Tuple[Choice, ...] = (),
    ) -> None:
        self.text = text
        self.message = message
        self.finish_reason = finish_reason
        self.usage = usage
        self.model = model
        self.id = id
        self.request_id = request_id
        self.tool_calls = tool_calls
        self.parsed: ParsedT = parsed  # type: ignore[assignment]  # None only where nothing was to be made of the text
        self._raw = raw
        self._reasoning = reasoning
        self._choices = choices
        self._fallback = 0

    @property
    def fallback(self) -> int:
        """The number of the entry of ``fallbacks=`` that brought it, from 1; 0 for the request itself."""
        number: int = getattr(self, "_fallback", 0)  # pickles of 0.1.0 lack it
        return number

    @property
    def cached(self) -> bool:
        """True if it came from the pool's cache: it has no tokens then, and ``raw`` has those of the first time."""
        return bool(getattr(self, "_cached", False))

    @cached.setter
    def cached(self, value: bool) -> None:
        self._cached = value

    @property
    def reasoning(self) -> Optional[str]:
        """The model's account of its reasoning, in whichever field the server has it; None without any.

        Where a server does not separate it, it is in :attr:`text` too, in its tags or up to ``</think>``.
        """
        reasoning: Optional[str] = getattr(self, "_reasoning", None)  # pickles of 0.1.0 lack it
        return reasoning

    @property
    def choices(self) -> List[Choice]:
        """All answers to a request with ``n=``; the other attributes are those of the first."""
        further: Tuple[Choice, ...] = getattr(self, "_choices", ())
        first = Choice(
            0, self.text, self.message, self.finish_reason, self.tool_calls, self.reasoning, parsed=self.parsed
        )
        return [first, *further]

    @property
    def raw(self) -> Any:
        """The JSON body as it came; kept as bytes, which need less memory, until it is read."""
        if isinstance(self._raw, bytes):
            self._raw = json.loads(self._raw)
        return self._raw

    @raw.setter
    def raw(self, body: Any) -> None:
        self._raw = body

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"ChatCompletion({self.text!r}, finish_reason={self.finish_reason!r}, model={self.model!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatCompletion):
            return NotImplemented
        return self.raw == other.raw and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__ if not name.startswith("_")
        )

    __hash__ = None  # type: ignore[assignment]  # holds dicts, as a dict it is not hashable


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call, as it arrives in a stream.

    Attributes:
        index: the call's place in ``tool_calls`` of the whole answer, from 0; pieces with the same one belong together.
        id: the call's id in its first piece, "" in the others.
        name: the function's name in its first piece, "" in the others.
        arguments: the next piece of its arguments' JSON, "" for none.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class ChatChunk:
    """A piece of a model's answer, as it arrives in a stream.  ``str(chunk)`` is its text.

    Of an answer with several choices (``n``) these attributes are the first one's; the others are in :attr:`raw`.

    Attributes:
        text: the next piece of the text, always a str ("" for a chunk that brings none).
        finish_reason: why the model stopped, in the chunk that says so; None in the others.
        tool_calls: pieces of the tools the model wants called, empty without any.
        usage: tokens the whole answer used, in the chunk that says so (the last, as a rule); None in the others.
        raw: the chunk's JSON as it came; its ``choices`` are those of all.
        index: the choice that the chunk is about (``choices[0].index``), 0 for one that is about none.
        reasoning: the next piece of the model's reasoning, "" for a chunk that brings none, and where the server does
            not separate it from the text.
    """

    __slots__ = ("finish_reason", "index", "raw", "reasoning", "text", "tool_calls", "usage")

    def __init__(
        self,
        text: str = "",
        finish_reason: Optional[str] = None,
        tool_calls: Tuple[ToolCallDelta, ...] = (),
        usage: Optional[Usage] = None,
        raw: Optional[Mapping[str, Any]] = None,
        index: int = 0,
        reasoning: str = "",
    ) -> None:
        self.text = text
        self.reasoning = reasoning
        self.finish_reason = finish_reason
        self.tool_calls = tool_calls
        self.usage = usage
        self.raw: Mapping[str, Any] = {} if raw is None else raw
        self.index = index

    def __setstate__(self, state: Tuple[None, Mapping[str, Any]]) -> None:
        for name, value in {"reasoning": "", **state[1]}.items():  # pickles of 0.1.0 lack it
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        fields = "".join(
            f", {name}={value!r}"
            for name, value in (("finish_reason", self.finish_reason), ("tool_calls", self.tool_calls))
            if value
        )
        return f"ChatChunk({self.text!r}{fields})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatChunk):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # holds a dict
