"""Values that internal packages hand to one another: responses, verdicts on them, sizes of requests, stated limits."""

from __future__ import annotations

import math
from typing import Any, ContextManager, Mapping, NamedTuple, Optional, Protocol, Sequence

from .answers import Usage
from .errors import ConfigurationError
from .types import ChatRequest

__all__ = [
    "LATENESS_SECONDS",
    "BackgroundResponse",
    "CallerError",
    "FileFault",
    "HTTPResponse",
    "Hold",
    "LazyBody",
    "RequestSize",
    "StatedLimit",
    "Verdict",
    "Waiting",
    "common_reason",
    "duration_text",
]

LATENESS_SECONDS = 0.5
"""Seconds after its reserved moment within which a call under a shared limit is sent.

Late calls and those that come in time fall into one minute: so shared limits are laid out for a minute and this."""


class CallerError(BaseException):
    """An exception on its way to the caller of a pool without workers, past all that makes an outcome of exceptions.

    Args:
        error: the exception, which is raised in its place.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class HTTPResponse(NamedTuple):
    """An HTTP response, read to its end and not classified yet.

    Attributes:
        status: HTTP status.
        headers: response headers, looked up without regard to case.
        content: the body's bytes, decompressed.
        url: where it came from, without a query string.
        proxy: the URL of the proxy that it came through, without user and password; "" without one.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str = ""
    proxy: str = ""


class FileFault(Exception):
    """A file in the body of a request cannot be read, or that of its answer cannot be written.

    Args:
        error: what ends the call, and no other one.
    """

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__(error)
        self.error = error


class LazyBody(Protocol):
    """The body of a request that is read at each attempt, not before.

    Attributes:
        content_type: the value of that header.
    """

    content_type: str

    def opened(self) -> ContextManager[Any]:
        """Lend it as bytes, or as a stream with a length that ``requests`` takes, and that can be rewound.

        Raises:
            ConfigurationError: it cannot be read.
        """

    def renamed(self, model: str) -> LazyBody:
        """Return the same body with another model."""

    def digest(self) -> bytes:
        """Return what tells it from others, whatever its files are called; raises as :meth:`opened`."""


class BackgroundResponse(NamedTuple):
    """A response that the server makes in the background.

    Attributes:
        id: the server's name for it.
        poll: asks for it.
        cancel: has the server stop making it.
    """

    id: str
    poll: ChatRequest
    cancel: ChatRequest


class Verdict(NamedTuple):
    """Classification of a response or an exception, made by ``_wire``; policies look at this and at nothing else.

    Attributes:
        kind: what it means for the call:

            - ``"success"``: ``value`` is the answer;
            - ``"pending"``: there is no answer yet, ``background`` is to be asked for it;
            - ``"throttled"``: refused for now (a 429 that may be retried); uses up no retry;
            - ``"timeout"``: the attempt was cut by a time limit;
            - ``"unavailable"``: no connection, a broken one, or a 5xx;
            - ``"retry"``: anything else that may go better next time;
            - ``"fail"``: this call cannot succeed;
            - ``"fatal"``: no call of ``scope`` can.
        scope: what a fatal error concerns: ``"run"``, ``"model"`` (its path and model) or ``"endpoint"``;
            ``"call"`` for every other kind.
        error: the error to raise or to keep, None for a success.
        value: the decoded answer of a success.
        retry_after: seconds the server asked to wait, None where it did not.
        usage: tokens the answer used.
        limits: rate limits the server stated, by header name; empty without any.
        status: HTTP status, None without a response.
        request_id: the server's ``x-request-id``.
        about: what a failure is about where that makes a difference: ``"access"`` (the key, a permission or the model
            is refused), ``"start"`` (the server says that it is not ready yet), ``"content"`` (the server may have
            stumbled over the content of the request), ``"tier"`` (its service tier has no room), ``"gone"`` (a
            response in the background is there no more, or was cancelled); "" otherwise.
        fingerprint: of a failure that says more when it comes again: equal for the same refusal of other calls
            (``"fail"``), or for the same unusable answer to the same call (``"retry"``); None otherwise.
        key_refused: whether the server refused the API key, so that a new one may help (a 401).
        background: the response that the server goes on making, also where it only could not be asked for; None where
            there is none, and where it has ended or is gone.
    """

    kind: str
    scope: str = "call"
    error: Optional[Any] = None  # an APIError; Any keeps NamedTuple free of variance trouble
    value: Any = None
    retry_after: Optional[float] = None
    usage: Optional[Usage] = None
    limits: Mapping[str, str] = {}
    status: Optional[int] = None
    request_id: Optional[str] = None
    about: str = ""
    fingerprint: Optional[str] = None
    key_refused: bool = False
    background: Optional[BackgroundResponse] = None


class RequestSize(NamedTuple):
    """Size of a request, as far as its body shows it.

    Attributes:
        prompt_bytes: bytes of text in it, as UTF-8.
        other_tokens: tokens for content that is not text (images, sound, files).
        completion_limit: the most tokens that one answer may have, None where the request does not limit them.
        choices: number of answers that it asks for; 0 where an answer takes no tokens.
    """

    prompt_bytes: int
    other_tokens: int = 0
    completion_limit: Optional[int] = None
    choices: int = 1


class StatedLimit(NamedTuple):
    """State of one of a server's rate limits, by its own account.

    Attributes:
        limit: units in all.
        remaining: units that were left.
        reset: seconds until all are there again, None where it does not say.
    """

    limit: float
    remaining: float
    reset: Optional[float] = None


class Hold(NamedTuple):
    """Something that holds calls back.

    Attributes:
        reason: a few words for a person; none of them is a server's.
        seconds: until it lets go; ``inf`` where that depends on calls in flight.
    """

    reason: str
    seconds: float = math.inf


class Waiting(NamedTuple):
    """State of the calls of a run, as far as a person who waits for them is concerned.

    Attributes:
        reason: why none of those that wait is sent, in a few words; None while they are sent.
        in_flight: exchanges under way.
    """

    reason: Optional[str] = None
    in_flight: int = 0


def common_reason(holds: Sequence[Optional[Hold]]) -> Optional[str]:
    """Return the reason for which calls wait that have several ways, None without one.

    Where all ways are held back, it is that of the first to be free again; otherwise the text says how many are.
    """
    held = [hold for hold in holds if hold is not None]
    if not held:
        return None
    if len(held) == len(holds):
        return min(held, key=lambda hold: hold.seconds).reason
    return f"{held[0].reason} ({len(held)} of {len(holds)})"


def duration_text(seconds: float) -> str:
    """Return a time for a person: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
