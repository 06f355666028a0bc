"""The steps of a script: what a :class:`FakeServer` does with a request, as immutable values."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, List, Optional, Protocol, Sequence, Tuple, Union

from ..errors import ConfigurationError
from . import bodies, hints
from .actions import Action, Close, Send
from .framing import HeaderFields, chunked, header_pairs, reason_of, response_head
from .received import ReceivedRequest
from .stream_actions import StreamForm, stream_actions, wants_stream

__all__ = ["Answer", "Answerer", "Error", "Html", "RateLimited", "Redirect", "Step"]

_BY_STATUS: Any = "(by status)"


class Answerer(Protocol):
    """Whoever makes the content of an answer out of a request and, if it is given, the answer's text."""

    def content(self, request: ReceivedRequest, text: Optional[str]) -> Tuple[int, Any]:
        """Status and JSON body."""


class Step:
    """What to do with one request.  Steps are immutable and can be used any number of times."""

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The step as actions on the connection."""
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
        """The answer in one piece."""
        status, content = self.status, self.body
        if content is None:
            default_status, content = model.content(request, self.text)
            status = status if default_status == 200 else default_status
        if self.body is None and status == 200 and wants_stream(request):
            form = StreamForm(headers=self.headers, framing="close" if self.framing == "close" else "chunked")
            streamed = stream_actions(request, content, None, form)
            if streamed is not None:
                return streamed
        return self._framed(request, status, content if isinstance(content, bytes) else json.dumps(content).encode())

    def _framed(self, request: ReceivedRequest, status: int, payload: bytes) -> List[Action]:
        fields = {"content-type": "application/json", "x-request-id": f"req_{request.number}"}
        if self.framing == "length":
            fields["content-length"] = str(len(payload))
        elif self.framing == "chunked":
            fields["transfer-encoding"] = "chunked"
            payload = chunked(payload, self.chunk_size)
        else:
            fields["connection"] = "close"
        pairs = header_pairs(self.headers)
        head = response_head(status, fields, pairs)
        closes = {**fields, **dict(_lowered(pairs))}.get("connection") == "close"
        return [Send(head, payload), Close()] if closes else [Send(head, payload)]


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
    type: Optional[str] = _BY_STATUS
    code: Union[str, int, None] = _BY_STATUS
    param: Optional[str] = None
    headers: HeaderFields = ()

    def __post_init__(self) -> None:
        _check_status(self.status)
        object.__setattr__(self, "headers", header_pairs(self.headers))

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The error as an answer."""
        kind, code = _ERRORS.get(self.status, ("server_error" if self.status >= 500 else "invalid_request_error", None))
        message = self.message
        if message is None:
            message = f"{reason_of(self.status, 'Error')} (from FakeServer's script)"
        body = bodies.error_body(
            message,
            type=kind if self.type == _BY_STATUS else self.type,
            code=code if self.code == _BY_STATUS else self.code,
            param=self.param,
        )
        return Answer(body=body, status=self.status, headers=self.headers).actions(request, model)


@dataclass(frozen=True)
class RateLimited(Step):
    """A refusal that says in one of the known ways how long to wait.

    Args:
        wait: seconds to wait.
        hint: how it is said: one of :data:`HINTS`, or None for a refusal without a hint.
        status: HTTP status; 503 with a hint is seen too.
        headers: more header fields.

    Raises:
        ConfigurationError: an unknown ``hint``, or a value out of range.

    Example, a test that runs once per way of saying it::

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
        if self.hint is not None and self.hint not in hints.HINTS:
            raise ConfigurationError(f"hint must be None or one of {', '.join(hints.HINTS)}; got {self.hint!r}")
        if not 0 <= self.wait < math.inf:
            raise ConfigurationError(f"wait must be a number of seconds, 0 or more, got {self.wait!r}")
        _check_status(self.status)
        object.__setattr__(self, "headers", header_pairs(self.headers))

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The refusal as an answer."""
        said = hints.say(self.hint, self.wait)
        message = f"Rate limit reached. {said.text}".strip()
        headers = (*header_pairs(self.headers), *said.headers)
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
        """The page as an answer."""
        title = f"{self.status} {reason_of(self.status, '')}".strip()
        page = self.page
        if page is None:
            page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>\r\n"
        headers = (("content-type", "text/html; charset=utf-8"), *header_pairs(self.headers))
        return Answer(body=page.encode(), status=self.status, headers=headers).actions(request, model)


@dataclass(frozen=True)
class Redirect(Step):
    """A redirect to ``location``, an absolute URL or a path."""

    location: str
    status: int = 307

    def actions(self, request: ReceivedRequest, model: Answerer) -> List[Action]:
        """The redirect as an answer without a body."""
        return Answer(body=b"", status=self.status, headers={"location": self.location}).actions(request, model)


# (type, code) that OpenAI's documentation and SDK tests show per status.
_ERRORS = {
    200: ("server_error", "server_error"),
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def _check_status(status: object) -> None:
    if not isinstance(status, int) or isinstance(status, bool):
        raise TypeError(f"status must be an int, got {status!r}")
    if not 200 <= status <= 999:
        raise ConfigurationError(f"status must be from 200 to 999, got {status}")


def _lowered(pairs: Sequence[Tuple[str, str]]) -> List[Tuple[str, str]]:
    return [(name.lower(), value.lower()) for name, value in pairs]
