"""Streamed answers: a body taken apart into server-sent events, and the events as actions on a connection.

Source of the events: the public API reference.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import ConfigurationError
from .http_parts import HeaderFields, chunked, header_pairs, response_head
from .http_server import Action, Break, Close, Send, Wait
from .received import ReceivedRequest
from .routing import api_path

__all__ = ["ENDS", "Piece", "StreamForm", "check_pieces", "stream_actions", "wants_stream", "words"]

_DONE = b"data: [DONE]\n\n"
_PIECE_CHARACTERS = 8

Piece = Union[str, Mapping[str, Any], bytes]

ENDS = ("done", "no_done", "no_reason", "cut", "hangup", "reset", "stall", "open")
_NEWLINES = ("\n", "\r\n", "\r")


class _StreamEvent(NamedTuple):
    """One event: its name ("" for none) and its JSON."""

    name: str
    payload: Mapping[str, Any]


def _encoded(event: _StreamEvent, *, several_lines: bool = False) -> bytes:
    """Return the event as it is sent, with line feeds; its JSON on one ``data:`` line or on several."""
    text = _json(event.payload, indent=1 if several_lines else None)
    lines = [f"event: {event.name}"] if event.name else []
    lines += [f"data: {line}" for line in text.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def _json(payload: Mapping[str, Any], indent: Optional[int]) -> str:
    text = json.dumps(payload, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: UTF-8 has no form for it
        return json.dumps(payload, indent=indent)
    return text


def words(text: str) -> List[str]:
    """Split the text into pieces of a word each; together they are the text."""
    return re.findall(r"\s*\S+|\s+", text)


def _events_of(path: str, body: Any, *, with_usage: bool) -> Union[_ChoiceEvents, _ResponseEvents, None]:
    """Return the events of ``body``; None if it is not the body of an answer that can be streamed."""
    if not isinstance(body, Mapping):
        return None
    if path == "/responses" and isinstance(body.get("output"), list):
        return _ResponseEvents(body)
    if path in ("/chat/completions", "/completions") and isinstance(body.get("choices"), list):
        return _ChoiceEvents(body, is_chat=path == "/chat/completions", with_usage=with_usage)
    return None


class _ChoiceEvents:
    """The events of ``/chat/completions`` and ``/completions``.

    Args:
        body: the whole body.
        is_chat: whether it is of chat.
        with_usage: whether a last chunk has the usage.

    Attributes:
        texts: the text of each choice.
    """

    ends_with_done = True

    def __init__(self, body: Mapping[str, Any], *, is_chat: bool, with_usage: bool) -> None:
        self._body = body
        self._is_chat = is_chat
        self._with_usage = with_usage
        self._choices: List[Mapping[str, Any]] = body["choices"]
        self.texts = [self._text_of(choice) for choice in self._choices]

    def _text_of(self, choice: Mapping[str, Any]) -> str:
        text = choice.get("message", {}).get("content") if self._is_chat else choice.get("text")
        return text if isinstance(text, str) else ""

    def opening(self) -> Iterator[_StreamEvent]:
        """Yield the events before the first piece of text: the role of each choice."""
        for place, choice in enumerate(self._choices if self._is_chat else ()):
            message = choice.get("message", {})
            content = None if message.get("content") is None else ""
            yield self._chunk(place, {"role": message.get("role", "assistant"), "content": content, **_nulls(message)})

    def text(self, place: int, piece: str) -> _StreamEvent:
        """Return the event of a piece of the text of the choice at ``place``."""
        return self._chunk(place, {"content": piece} if self._is_chat else piece)

    def closing(self, reason: Optional[str]) -> Iterator[_StreamEvent]:
        """Yield the events after the text: tool calls, finish reasons (``reason``, or those of the body), usage."""
        empty: Any = {} if self._is_chat else ""
        for place, choice in enumerate(self._choices):
            for delta in _call_deltas(choice.get("message", {}).get("tool_calls") or ()):
                yield self._chunk(place, {"tool_calls": [delta]})
            yield self._chunk(place, empty, reason or choice.get("finish_reason"))
        if self._with_usage:
            yield _StreamEvent("", {**self._head(), "choices": [], "usage": self._body.get("usage")})

    def _chunk(self, place: int, delta: Any, reason: Optional[str] = None) -> _StreamEvent:
        index = self._choices[place].get("index", place)
        piece = {"index": index, "delta" if self._is_chat else "text": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._with_usage else {}
        return _StreamEvent("", {**self._head(), "choices": [piece], **usage})

    def _head(self) -> Dict[str, Any]:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        rest = {name: value for name, value in self._body.items() if name not in ("choices", "object", "usage")}
        return {"object": kind, **rest}


def _nulls(message: Mapping[str, Any]) -> Dict[str, None]:
    return {name: None for name, value in message.items() if value is None and name != "content"}


def _call_deltas(calls: Sequence[Mapping[str, Any]]) -> Iterator[Dict[str, Any]]:
    for index, call in enumerate(calls):
        function = call.get("function", {})
        yield {"index": index, **call, "function": {**function, "arguments": ""}}
        for piece in _pieces(function.get("arguments") or ""):
            yield {"index": index, "function": {"arguments": piece}}


def _pieces(text: str) -> List[str]:
    return [text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS)]


class _ResponseEvents:
    """The events of ``/responses``.

    Attributes:
        texts: the text of its message, the only one there is.
    """

    ends_with_done = False

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self._event_count = 0
        self._items: List[Mapping[str, Any]] = body["output"]
        self._place = next((place for place, item in enumerate(self._items) if item.get("type") == "message"), None)
        self.texts = [] if self._place is None else [_message_text(self._items[self._place])]

    def opening(self) -> Iterator[_StreamEvent]:
        """Yield the events before the first piece of text."""
        begun = {**self._body, "status": "in_progress", "output": [], "usage": None}
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        if self._place is not None:
            item = {**self._items[self._place], "status": "in_progress", "content": []}
            yield self._event("response.output_item.added", output_index=self._place, item=item)
            yield self._text_event("response.content_part.added", part=_part(""))

    def text(self, place: int, piece: str) -> _StreamEvent:
        """Return the event of a piece of the message's text."""
        return self._text_event("response.output_text.delta", delta=piece)

    def closing(self, reason: Optional[str]) -> Iterator[_StreamEvent]:
        """Yield the events after the text, up to the whole response; ``"length"`` makes it incomplete."""
        for place, item in enumerate(self._items):
            if place == self._place:
                yield self._text_event("response.output_text.done", text=self.texts[0])
                yield self._text_event("response.content_part.done", part=_part(self.texts[0]))
            elif item.get("type") == "function_call":
                yield from self._call(place, item)
            yield self._event("response.output_item.done", output_index=place, item=item)
        ended: Dict[str, Any] = {**self._body}
        if reason not in (None, "stop", "tool_calls"):
            incomplete_reason = "max_output_tokens" if reason == "length" else reason
            ended.update(status="incomplete", incomplete_details={"reason": incomplete_reason})
        yield self._event(f"response.{ended.get('status', 'completed')}", response=ended)

    def _call(self, place: int, item: Mapping[str, Any]) -> Iterator[_StreamEvent]:
        location = {"output_index": place, "item_id": item.get("id")}
        arguments = item.get("arguments") or ""
        yield self._event("response.output_item.added", output_index=place, item={**item, "arguments": ""})
        for piece in _pieces(arguments):
            yield self._event("response.function_call_arguments.delta", delta=piece, **location)
        yield self._event("response.function_call_arguments.done", arguments=arguments, **location)

    def _text_event(self, kind: str, **fields: Any) -> _StreamEvent:
        place = self._place or 0
        item = self._items[place].get("id") if self._items else None
        return self._event(kind, item_id=item, output_index=place, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> _StreamEvent:
        number, self._event_count = self._event_count, self._event_count + 1
        return _StreamEvent(kind, {"type": kind, "sequence_number": number, **fields})


def _message_text(item: Mapping[str, Any]) -> str:
    texts = (part.get("text") for part in item.get("content") or () if isinstance(part, Mapping))
    return "".join(text for text in texts if isinstance(text, str))


def _part(text: str) -> Dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


@dataclass(frozen=True)
class StreamForm:
    """The form of a stream: the arguments of :class:`Stream` besides its content."""

    end: Union[str, Mapping[str, Any]] = "done"
    finish_reason: Optional[str] = None
    every: float = 0.0
    newline: str = "\n"
    several_lines: bool = False
    headers: HeaderFields = ()
    framing: str = "chunked"

    def check(self) -> None:
        """Refuse values that no stream can have.

        Raises:
            ConfigurationError: a value is out of range.
        """
        if not isinstance(self.end, Mapping) and self.end not in ENDS:
            raise ConfigurationError(f"end must be a dict or one of {', '.join(ENDS)}, got {self.end!r}")
        if self.newline not in _NEWLINES:
            raise ConfigurationError(f"newline must be one of {_NEWLINES}, got {self.newline!r}")
        if self.framing not in ("chunked", "close"):
            raise ConfigurationError(f"framing of a stream must be 'chunked' or 'close', got {self.framing!r}")
        if not 0 <= self.every < math.inf:
            raise ConfigurationError(f"every must be a number of seconds, 0 or more, got {self.every!r}")

    def encode(self, event: _StreamEvent) -> bytes:
        """Return the bytes of an event."""
        return _encoded(event, several_lines=self.several_lines).replace(b"\n", self.newline.encode())


def check_pieces(pieces: Optional[Sequence[Piece]]) -> Optional[Tuple[Piece, ...]]:
    """Return the pieces as a tuple.

    Raises:
        TypeError: one of them is neither a text, a dict nor bytes.
    """
    if pieces is None:
        return None
    if isinstance(pieces, (str, bytes, Mapping)):
        raise TypeError(f"pieces must be a list such as ['a', 'b'], got {pieces!r}")
    for piece in pieces:
        if not isinstance(piece, (str, bytes, Mapping)):
            raise TypeError(f"a piece of a stream must be a str, a dict or bytes, got {piece!r}")
    return tuple(pieces)


def wants_stream(request: ReceivedRequest) -> bool:
    """Return True if the request asks for a stream."""
    return isinstance(request.body, dict) and bool(request.body.get("stream"))


def stream_actions(
    request: ReceivedRequest, body: Any, pieces: Optional[Sequence[Piece]], form: StreamForm
) -> Optional[List[Action]]:
    """Return the answer ``body`` as a stream; None if such a body is not streamed.

    Args:
        request: the request.
        body: the body of the whole answer.
        pieces: the pieces of the text, and other chunks between them; None: words.
        form: the form of the stream.
    """
    options = request.body.get("stream_options")
    with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    events = _events_of(api_path(request.path) or "", body, with_usage=with_usage)
    if events is None:
        return None
    fields = {"content-type": "text/event-stream", "x-request-id": f"req_{request.number}", "cache-control": "no-cache"}
    fields.update({"transfer-encoding": "chunked"} if form.framing == "chunked" else {"connection": "close"})
    actions: List[Action] = [Send(response_head(200, fields, header_pairs(form.headers)))]
    for data in _event_bytes(events, pieces, form):
        if form.every:
            actions.append(Wait(form.every))
        actions.append(Send(b"", chunked(data, 1 << 30, last=False) if form.framing == "chunked" else data))
    return actions + _last_actions(form)


def _event_bytes(
    events: Union[_ChoiceEvents, _ResponseEvents], pieces: Optional[Sequence[Piece]], form: StreamForm
) -> Iterator[bytes]:
    """Yield the bytes of each event."""
    is_open = False
    for piece in _pieces_by_choice(events.texts, pieces):
        if isinstance(piece, bytes):
            yield piece
        elif isinstance(piece, Mapping):
            yield form.encode(_StreamEvent("", piece))
        else:
            yield from map(form.encode, () if is_open else events.opening())
            yield from (form.encode(events.text(choice, text)) for choice, text in enumerate(piece) if text is not None)
            is_open = True
    if isinstance(form.end, Mapping):
        yield form.encode(_StreamEvent("", form.end))
    elif form.end in ("done", "no_done", "no_reason", "open"):
        opening = [] if is_open else events.opening()
        closing = [] if form.end == "no_reason" else events.closing(form.finish_reason)
        yield from map(form.encode, [*opening, *closing])
        if form.end == "no_reason" or (form.end != "no_done" and events.ends_with_done):
            yield _DONE.replace(b"\n", form.newline.encode())


def _pieces_by_choice(
    texts: Sequence[str], pieces: Optional[Sequence[Piece]]
) -> Iterator[Union[bytes, Mapping[str, Any], Sequence[Optional[str]]]]:
    """Yield the chunks in turn: for a text, the next piece of every choice."""
    if pieces is None:
        yield from itertools.zip_longest(*map(words, texts))
        return
    for piece in pieces:
        yield [piece] * len(texts) if isinstance(piece, str) else piece


def _last_actions(form: StreamForm) -> List[Action]:
    if form.end in ("stall", "open"):
        return [Wait(None)]
    if form.end == "reset":
        return [Break()]
    if form.end == "hangup" or form.framing == "close":
        return [Close()]
    return [Send(b"", chunked(b"", 1))]
