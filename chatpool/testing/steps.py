"""The steps of a script: what a :class:`FakeServer` does with a request, as immutable values.

Complete answers first, then faults of the connection, then streams.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Protocol, Sequence, Tuple, Union

from ..errors import ConfigurationError
from .http_parts import HINTS, HeaderFields, chunked, header_pairs, hint_of, reason_phrase, response_head
from .http_server import Action, Break, Close, Send, Wait, cut_connection, drip
from .received import ReceivedRequest
from .routing import Content, error_body
from .sse import Piece, StreamForm, check_pieces, stream_actions, wants_stream

__all__ = [
    "Answer",
    "Answerer",
    "Delay",
    "Drip",
    "Error",
    "Garbage",
    "Hangup",
    "Html",
    "LostAnswer",
    "RateLimited",
    "Redirect",
    "Reset",
    "Stall",
    "Step",
    "Stream",
    "Truncate",
]

# (type, code) that OpenAI's documentation and SDK tests show per status.
_ERRORS = {
    200: ("server_error", "server_error"),
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_DEFAULT_OF_STATUS: Any = "(by status)"


def _check_status(status: object) -> None:
    if not isinstance(status, int) or isinstance(status, bool):
        raise TypeError(f"status must be an int, got {status!r}")
    if not 200 <= status <= 999:
        raise ConfigurationError(f"status must be between 200 and 999, got {status}")


def _check_at_least(name: str, value: float, minimum: float) -> None:
    if not minimum <= value < math.inf:
        raise ConfigurationError(f"{name} must be a number, at least {minimum}, got {value!r}")


class Answerer(Protocol):
    """Makes the content of an answer for a request."""

    def content(self, request: ReceivedRequest, text: Optional[str]) -> Content:
        """Return status and body, with ``text`` if that is given."""


class Step:
    """One response, or fault, for one request.  Steps are immutable and can be used any number of times."""

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the step as actions on the connection."""
        raise NotImplementedError


@dataclass(frozen=True)
class Answer(Step):
    """A complete answer.  ``Answer()`` is what the server would have answered anyway.

    A request with ``"stream": true`` gets it as a stream, a word per chunk (:class:`Stream` says more about it),
    except with ``body``, which is sent as it is.

    Args:
        text: what the model says, wrapped into the body that fits the request's path.
        body: the whole body instead: bytes are sent as they are, everything else as JSON.
        status: HTTP status.
        headers: header fields, as a dict or as pairs; they replace the server's own of the same name.
            With ``connection: close`` the server closes the connection afterwards.
        framing: how the end of the body is told: ``"length"`` (content-length), ``"chunked"`` or ``"close"``
            (by the end of the connection).
        chunk_size: bytes per chunk with ``framing="chunked"``.

    Raises:
        TypeError: ``text`` is not a str.
        ConfigurationError: both ``text`` and ``body`` are given, or a value is out of range.
    """

    text: Optional[str] = None
    body: Any = None
    status: int = 200
    headers: HeaderFields = ()
    framing: str = "length"
    chunk_size: int = 4096

    def __post_init__(self) -> None:
        if self.text is not None and not isinstance(self.text, str):
            raise TypeError(f"text must be a str, got {self.text!r} (an error is Error(503), a status status=503)")
        _check_status(self.status)
        if self.text is not None and self.body is not None:
            raise ConfigurationError("give text or body, not both")
        if self.framing not in ("length", "chunked", "close"):
            raise ConfigurationError(f"framing must be 'length', 'chunked' or 'close', got {self.framing!r}")
        if self.chunk_size < 1:
            raise ConfigurationError(f"chunk_size must be at least 1, got {self.chunk_size}")
        object.__setattr__(self, "headers", header_pairs(self.headers))

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the answer in one piece."""
        content = Content(self.status, self.body)
        if self.body is None:
            content = model.content(request, self.text)
            if content.status == 200:
                content = content._replace(status=self.status)
        if self.body is None and content.status == 200 and wants_stream(request):
            form = StreamForm(headers=self.headers, framing="close" if self.framing == "close" else "chunked")
            streamed = stream_actions(request, content.body, None, form)
            if streamed is not None:
                return streamed
        return self._framed(request, content)

    def _framed(self, request: ReceivedRequest, content: Content) -> List[Action]:
        payload = content.body if isinstance(content.body, bytes) else json.dumps(content.body).encode()
        fields = {"content-type": content.content_type, "x-request-id": f"req_{request.number}"}
        if self.framing == "length":
            fields["content-length"] = str(len(payload))
        elif self.framing == "chunked":
            fields["transfer-encoding"] = "chunked"
            payload = chunked(payload, self.chunk_size)
        else:
            fields["connection"] = "close"
        pairs = header_pairs(self.headers)
        head = response_head(content.status, fields, pairs)
        is_last = {**fields, **dict(_lowered(pairs))}.get("connection") == "close"
        return [Send(head, payload), Close()] if is_last else [Send(head, payload)]


@dataclass(frozen=True)
class Error(Step):
    """An error in the shape that OpenAI sends: ``{"error": {"message", "type", "param", "code"}}``.

    Args:
        status: HTTP status. 200 gives an error body inside a 200.
        message: ``error.message``. Default: one that fits the status.
        type: ``error.type``. Default: what OpenAI sends with that status.
        code: ``error.code``: a str, an int or None. Default: what OpenAI sends with that status.
        param: ``error.param``.
        headers: header fields, as for :class:`Answer`.

    Other shapes of error bodies go as ``Answer(status=400, body={"detail": "..."})``.
    """

    status: int
    message: Optional[str] = None
    type: Optional[str] = _DEFAULT_OF_STATUS
    code: Union[str, int, None] = _DEFAULT_OF_STATUS
    param: Optional[str] = None
    headers: HeaderFields = ()

    def __post_init__(self) -> None:
        _check_status(self.status)
        object.__setattr__(self, "headers", header_pairs(self.headers))

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the error as an answer."""
        other_type = "server_error" if self.status >= 500 else "invalid_request_error"
        default_type, code = _ERRORS.get(self.status, (other_type, None))
        message = self.message
        if message is None:
            message = f"{reason_phrase(self.status, 'Error')} (from FakeServer's script)"
        body = error_body(
            message,
            type=default_type if self.type == _DEFAULT_OF_STATUS else self.type,
            code=code if self.code == _DEFAULT_OF_STATUS else self.code,
            param=self.param,
        )
        return Answer(body=body, status=self.status, headers=self.headers).actions(request, model)


@dataclass(frozen=True)
class RateLimited(Step):
    """A rejection with a hint how long to wait.

    Args:
        wait: seconds to wait.
        hint: the form of the hint: one of :data:`HINTS`, or None for a rejection without one.
        status: HTTP status; 503 with a hint is seen too.
        headers: more header fields.

    Raises:
        ConfigurationError: an unknown ``hint``, or a value out of range.

    Example, a test that runs once per form of the hint::

        @pytest.mark.parametrize("hint", chatpool.testing.HINTS)
        def test_my_client_waits(hint):
            with FakeServer(script=[RateLimited(2, hint=hint)]) as server:
                ...
    """

    wait: float = 1.0
    hint: Optional[str] = "retry-after-ms"
    status: int = 429
    headers: HeaderFields = ()

    def __post_init__(self) -> None:
        if self.hint is not None and self.hint not in HINTS:
            raise ConfigurationError(f"hint must be None or one of {', '.join(HINTS)}, got {self.hint!r}")
        if not 0 <= self.wait < math.inf:
            raise ConfigurationError(f"wait must be a number of seconds, 0 or more, got {self.wait!r}")
        _check_status(self.status)
        object.__setattr__(self, "headers", header_pairs(self.headers))

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the refusal as an answer."""
        hint = hint_of(self.hint, self.wait)
        message = f"Rate limit reached. {hint.text}".strip()
        headers = (*header_pairs(self.headers), *hint.headers)
        return Error(self.status, message, headers=headers).actions(request, model)


@dataclass(frozen=True)
class Html(Step):
    """An HTML page, as a proxy in front of a server sends it.

    Args:
        status: HTTP status.
        page: the page. Default: the kind that nginx shows for that status.
        headers: header fields, as for :class:`Answer`.
    """

    status: int = 502
    page: Optional[str] = None
    headers: HeaderFields = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", header_pairs(self.headers))

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the page as an answer."""
        title = f"{self.status} {reason_phrase(self.status, '')}".strip()
        page = self.page
        if page is None:
            page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\r\n"
        headers = (("content-type", "text/html; charset=utf-8"), *header_pairs(self.headers))
        return Answer(body=page.encode(), status=self.status, headers=headers).actions(request, model)


@dataclass(frozen=True)
class Redirect(Step):
    """A redirect.

    Args:
        location: where to, an absolute URL or a path.
        status: HTTP status.
    """

    location: str
    status: int = 307

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the redirect as an answer without a body."""
        return Answer(body=b"", status=self.status, headers={"location": self.location}).actions(request, model)


@dataclass(frozen=True)
class Delay(Step):
    """Wait before another step.  The wait ends at once when the server closes or the client disconnects.

    Args:
        seconds: how long (of real time, whatever clock is installed).
        then: what follows. Default: the server's usual answer.

    Example::

        FakeServer(script=[Delay(0.5), Delay(1, then=Error(503))])
    """

    seconds: float
    then: Step = Answer()

    def __post_init__(self) -> None:
        _check_at_least("seconds", self.seconds, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return a wait, and the other step's actions."""
        return [Wait(self.seconds), *self.then.actions(request, model)]


@dataclass(frozen=True)
class Stall(Step):
    """Never answer, or stop in the middle of an answer; the connection stays open.

    Args:
        after: how many bytes of the answer, head included, are sent before.
        then: the answer that is begun.
    """

    after: int = 0
    then: Step = Answer()

    def __post_init__(self) -> None:
        _check_at_least("after", self.after, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the beginning of the answer, and an endless wait."""
        return [*_cut_actions(self.then, self.after, request, model), Wait(None)]


@dataclass(frozen=True)
class Drip(Step):
    """Send an answer in small pieces, so slowly that a timeout per read never ends it.

    Args:
        size: bytes per piece.
        every: seconds before each piece.
        part: the part that is sent in pieces: ``"all"``, ``"headers"`` (the body follows in one piece) or ``"body"``.
        then: the answer that is sent.

    With ``Answer(framing="chunked", chunk_size=1)`` and ``size=6`` every piece is one whole chunk.
    """

    size: int = 1
    every: float = 0.05
    part: str = "all"
    then: Step = Answer()

    def __post_init__(self) -> None:
        _check_at_least("size", self.size, 1)
        _check_at_least("every", self.every, 0)
        if self.part not in ("all", "headers", "body"):
            raise ConfigurationError(f"part must be 'all', 'headers' or 'body', got {self.part!r}")

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the answer's actions in pieces."""
        whole = self.then.actions(request, model)
        return list(drip(whole, size=self.size, every=self.every, part=self.part))


@dataclass(frozen=True)
class Reset(Step):
    """Break the connection with a reset (RST), as a crashed server or a firewall does.

    Args:
        after: how many bytes of the answer, head included, are sent before.
        then: the answer that is begun.
    """

    after: int = 0
    then: Step = Answer()

    def __post_init__(self) -> None:
        _check_at_least("after", self.after, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the beginning of the answer, and a reset."""
        return [*_cut_actions(self.then, self.after, request, model), Break()]


@dataclass(frozen=True)
class LostAnswer(Step):
    """Do what the request asks for, and lose the answer: a file is stored, or a batch made, but nobody hears of it.

    Without it a fault takes the place of what the request asks for: after an ``Error(503)`` nothing is stored.

    Args:
        then: what the client gets instead of the answer: a broken connection, or ``Error(504)``, ``Stall()``, ...

    Example, an upload that arrives though its connection breaks, and one that does not::

        FakeServer(script=[LostAnswer(), Reset()])
    """

    then: Step = Reset()

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the actions of what is sent instead."""
        model.content(request, None)
        return self.then.actions(request, model)


@dataclass(frozen=True)
class Truncate(Step):
    """Close the connection in the middle of a body whose length was announced.

    Args:
        after: how many bytes of the body are sent. Default: half of them.
        then: the answer that is cut.
    """

    after: Optional[int] = None
    then: Step = Answer()

    def __post_init__(self) -> None:
        if self.after is not None:
            _check_at_least("after", self.after, 0)

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the answer without the end of its body."""
        whole = self.then.actions(request, model)
        sends = [action for action in whole if isinstance(action, Send)]
        head, body = (sum(len(send.head) for send in sends), sum(len(send.body) for send in sends))
        after = body // 2 if self.after is None else self.after
        return [*cut_connection(whole, head + after), Close()]


@dataclass(frozen=True)
class Hangup(Step):
    """Close the connection in the orderly way (FIN): without an answer, or unannounced after one.

    Args:
        then: the answer that is sent first. ``Hangup(Answer())`` answers as usual and then closes a connection
            that the client believes to be alive. Default: none.
    """

    then: Optional[Step] = None

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the answer, if there is one, and the end."""
        return [Close()] if self.then is None else [*self.then.actions(request, model), Close()]


@dataclass(frozen=True)
class Garbage(Step):
    """Send bytes that are not HTTP, and close the connection.

    Args:
        data: the bytes.
    """

    data: bytes = b"\x00\x16\x03garbage, not HTTP\r\n\r\n\xff"

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the bytes as they are."""
        return [Send(self.data), Close()]


@dataclass(frozen=True)
class Stream(Step):
    r"""An answer in pieces (server-sent events), whole or broken off.

    It fits the request's path: chat completions, completions or responses.  A request that does not ask for a
    stream gets the same text as an :class:`Answer`.

    Args:
        pieces: the texts of the chunks. Default: what the server would have answered anyway, a word per chunk.
            Between them may stand a dict, sent as another chunk (``{"error": {...}}``), and bytes, sent as they
            are (``b": keep-alive\n\n"``, ``b"data: {no json\n\n"``). The chunk with the role goes before the
            first text.
        end: what follows the pieces:

            - ``"done"``: the finish_reason, usage if ``stream_options`` asks for it, ``[DONE]`` (of a response: its
              last event);
            - ``"no_done"``: the same without ``[DONE]``; ``"no_reason"``: ``[DONE]`` alone;
            - ``"cut"``: nothing, the body ends in the orderly way; ``"hangup"``: the connection is closed though the
              body has not ended; ``"reset"``: it is reset;
            - ``"stall"``: silence; ``"open"``: all that ``"done"`` sends, and silence instead of the body's end;
            - a dict: one more event, such as an error, and the end of the body.
        finish_reason: why the model stops. Default: what the whole answer would say.
        body: the body of the whole answer, instead of ``pieces``: with tool calls, say (:func:`chat_completion`).
        every: seconds before each event.
        newline: the end of each line: ``"\n"``, ``"\r\n"`` or ``"\r"``.
        several_lines: whether each event's JSON is spread over several ``data:`` lines.
        headers: header fields, as for :class:`Answer`.
        framing: ``"chunked"``, an event per HTTP chunk, or ``"close"`` (the end of the connection ends the body).

    Examples::

        Stream(["Once", " upon"])                                        # two chunks of text
        Stream(["Once", " upon"], end="cut")                             # a truncated answer
        Stream(["Once"], end={"error": {"message": "overloaded", "code": "server_is_overloaded"}})
        Drip(size=7, every=0, part="body", then=Stream(["é" * 1000]))    # read in pieces that fit nothing

    Raises:
        TypeError: a piece is of another kind.
        ConfigurationError: both ``pieces`` and ``body`` are given, or a value is out of range.
    """

    pieces: Optional[Sequence[Piece]] = None
    end: Union[str, Mapping[str, Any]] = "done"
    finish_reason: Optional[str] = None
    body: Optional[Mapping[str, Any]] = None
    every: float = 0.0
    newline: str = "\n"
    several_lines: bool = False
    headers: HeaderFields = ()
    framing: str = "chunked"

    def __post_init__(self) -> None:
        if self.pieces is not None and self.body is not None:
            raise ConfigurationError("give pieces or body, not both")
        object.__setattr__(self, "pieces", check_pieces(self.pieces))
        object.__setattr__(self, "headers", header_pairs(self.headers))
        self._form().check()

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """Return the answer's events, one after the other."""
        whole = Answer(body=self.body, headers=self.headers)
        if self.pieces is not None:
            whole = Answer("".join(piece for piece in self.pieces if isinstance(piece, str)), headers=self.headers)
        if not wants_stream(request):
            return whole.actions(request, model)
        content = model.content(request, whole.text)
        body = content.body if self.body is None else self.body
        streamed = stream_actions(request, body, self.pieces, self._form()) if content.status == 200 else None
        return whole.actions(request, model) if streamed is None else streamed

    def _form(self) -> StreamForm:
        return StreamForm(
            self.end, self.finish_reason, self.every, self.newline, self.several_lines, self.headers, self.framing
        )


def _cut_actions(step: Step, size: int, request: ReceivedRequest, model: Answerer) -> List[Action]:
    return cut_connection(step.actions(request, model), size) if size else []


def _lowered(pairs: Sequence[Tuple[str, str]]) -> List[Tuple[str, str]]:
    return [(name.lower(), value.lower()) for name, value in pairs]
