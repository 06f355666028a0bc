"""Answers that come in pieces: server-sent events over a chunked body."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ..errors import ConfigurationError
from .actions import Action, Break, Close, Send, Wait
from .framing import HeaderFields, chunked, header_pairs, response_head
from .model import api_path
from .received import ReceivedRequest
from .stream_events import DONE, ChoiceEvents, ResponseEvents, StreamEvent, encoded, events_of, words

__all__ = ["ENDS", "NEWLINES", "Piece", "StreamForm", "check_pieces", "stream_actions", "wants_stream"]

Piece = Union[str, Mapping[str, Any], bytes]

ENDS = ("done", "no_done", "no_reason", "cut", "hangup", "reset", "stall", "open")
NEWLINES = ("\n", "\r\n", "\r")


@dataclass(frozen=True)
class StreamForm:
    """How a stream is sent; see :class:`Stream`, whose arguments these are."""

    end: Union[str, Mapping[str, Any]] = "done"
    finish_reason: Optional[str] = None
    every: float = 0.0
    newline: str = "\n"
    several_lines: bool = False
    headers: HeaderFields = ()
    framing: str = "chunked"

    def check(self) -> None:
        """Refuse what cannot be sent.

        Raises:
            ConfigurationError: a value is out of range.
        """
        if not isinstance(self.end, Mapping) and self.end not in ENDS:
            raise ConfigurationError(f"end must be a dict or one of {', '.join(ENDS)}; got {self.end!r}")
        if self.newline not in NEWLINES:
            raise ConfigurationError(f"newline must be one of {NEWLINES}, got {self.newline!r}")
        if self.framing not in ("chunked", "close"):
            raise ConfigurationError(f"framing of a stream must be 'chunked' or 'close', got {self.framing!r}")
        if not 0 <= self.every < math.inf:
            raise ConfigurationError(f"every must be a number of seconds, 0 or more, got {self.every!r}")

    def encode(self, event: StreamEvent) -> bytes:
        """The bytes of an event."""
        return encoded(event, several_lines=self.several_lines).replace(b"\n", self.newline.encode())


def check_pieces(pieces: Optional[Sequence[Piece]]) -> Optional[Tuple[Piece, ...]]:
    """The pieces as a tuple.

    Raises:
        TypeError: one of them is neither a text, a dict nor bytes.
    """
    if pieces is None:
        return None
    if isinstance(pieces, (str, bytes, Mapping)):
        raise TypeError(f"pieces must be a list such as ['a', 'b'], got {pieces!r}")
    for piece in pieces:
        if not isinstance(piece, (str, bytes, Mapping)):
            raise TypeError(f"a piece of a stream is a str, a dict or bytes, got {piece!r}")
    return tuple(pieces)


def wants_stream(request: ReceivedRequest) -> bool:
    """Whether the request asks for a stream."""
    return isinstance(request.body, dict) and bool(request.body.get("stream"))


def stream_actions(
    request: ReceivedRequest, body: Any, pieces: Optional[Sequence[Piece]], form: StreamForm
) -> Optional[List[Action]]:
    """The answer ``body`` as a stream; None where such a body is not streamed.

    Args:
        request: what is answered.
        body: the body of the whole answer.
        pieces: what the text is split into, with what is sent between; None: words.
        form: how it is sent.
    """
    options = request.body.get("stream_options")
    with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    events = events_of(api_path(request.path) or "", body, with_usage=with_usage)
    if events is None:
        return None
    fields = {"content-type": "text/event-stream", "x-request-id": f"req_{request.number}", "cache-control": "no-cache"}
    fields.update({"transfer-encoding": "chunked"} if form.framing == "chunked" else {"connection": "close"})
    actions: List[Action] = [Send(response_head(200, fields, header_pairs(form.headers)))]
    for sent in _sent(events, pieces, form):
        if form.every:
            actions.append(Wait(form.every))
        actions.append(Send(b"", chunked(sent, 1 << 30, last=False) if form.framing == "chunked" else sent))
    return actions + _last_actions(form)


def _sent(
    events: Union[ChoiceEvents, ResponseEvents], pieces: Optional[Sequence[Piece]], form: StreamForm
) -> Iterator[bytes]:
    """The bytes of each event."""
    is_open = False
    for piece in _rounds(events.texts, pieces):
        if isinstance(piece, bytes):
            yield piece
        elif isinstance(piece, Mapping):
            yield form.encode(StreamEvent("", piece))
        else:
            yield from map(form.encode, () if is_open else events.opening())
            yield from (form.encode(events.text(at, text)) for at, text in enumerate(piece) if text is not None)
            is_open = True
    if isinstance(form.end, Mapping):
        yield form.encode(StreamEvent("", form.end))
    elif form.end in ("done", "no_done", "no_reason", "open"):
        opening = [] if is_open else events.opening()
        closing = [] if form.end == "no_reason" else events.closing(form.finish_reason)
        yield from map(form.encode, [*opening, *closing])
        if form.end == "no_reason" or (form.end != "no_done" and events.ends_with_mark):
            yield DONE.replace(b"\n", form.newline.encode())


def _rounds(
    texts: Sequence[str], pieces: Optional[Sequence[Piece]]
) -> Iterator[Union[bytes, Mapping[str, Any], Sequence[Optional[str]]]]:
    """What is sent in turn: for a text, the next piece of every choice."""
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
