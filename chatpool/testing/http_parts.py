"""Parts of HTTP responses: heads, chunks, and the hints by which servers say how long to wait."""

from __future__ import annotations

import http.client
import io
import math
from collections.abc import Mapping
from email.utils import formatdate
from http.client import responses as _REASONS  # noqa: N812 - a table, used as a constant
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple, Union

from ..clock import current_clock
from ..errors import ConfigurationError

__all__ = [
    "HINTS",
    "HeaderFields",
    "chunked",
    "go_duration",
    "header_pairs",
    "hint_of",
    "parse_response",
    "reason_phrase",
    "response_head",
]

HeaderFields = Union[Mapping[str, str], Sequence[Tuple[str, str]]]


def reason_phrase(status: int, default: str) -> str:
    """Return the reason phrase of an HTTP status."""
    return _REASONS.get(status, default)


def header_pairs(fields: HeaderFields) -> Tuple[Tuple[str, str], ...]:
    """Return header fields as pairs.

    Raises:
        ConfigurationError: a name or value holds a line break.
    """
    items = fields.items() if isinstance(fields, Mapping) else fields
    pairs = tuple((str(name), str(value)) for name, value in items)
    for name, value in pairs:
        if any(mark in name + value for mark in "\r\n"):
            raise ConfigurationError(f"the header field {name!r} holds a line break")
    return pairs


def response_head(status: int, fields: Mapping[str, str], pairs: Sequence[Tuple[str, str]]) -> bytes:
    """Return the head of a response; ``pairs`` replace the ``fields`` of the same name."""
    replaced = {name.lower() for name, _ in pairs}
    kept = [(name, value) for name, value in fields.items() if name not in replaced]
    lines = "".join(f"{name}: {value}\r\n" for name, value in (*kept, *pairs))
    return f"HTTP/1.1 {status} {reason_phrase(status, 'Unknown')}\r\n{lines}\r\n".encode("latin-1")


def chunked(payload: bytes, size: int, *, last: bool = True) -> bytes:
    """Return ``payload`` in chunks of ``size`` bytes; if they are the ``last``, with the chunk that ends the body."""
    chunks = [payload[start : start + size] for start in range(0, len(payload), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""][: None if last else -1])


class _Bytes:
    """Bytes in the place of a socket, to read a response from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *args: Any, **keywords: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def parse_response(answer: bytes, method: str) -> http.client.HTTPResponse:
    """Return the response in these bytes, ready to be read.

    Raises:
        OSError: they end too early.
        http.client.HTTPException: they are no response.
    """
    response = http.client.HTTPResponse(_Bytes(answer), method=method)  # type: ignore[arg-type]  # as a socket
    response.begin()
    return response


class _Hint(NamedTuple):
    """A hint to wait: header fields, and a sentence of the error message."""

    headers: Tuple[Tuple[str, str], ...] = ()
    text: str = ""


def hint_of(name: Optional[str], seconds: float) -> _Hint:
    """Return the hint of this name to wait for ``seconds``; an empty one for None."""
    return _Hint() if name is None else _HINTS_BY_NAME[name](seconds)


def go_duration(seconds: float) -> str:
    """Return a duration as Go prints it and OpenAI sends it: ``599ms``, ``1.2s``, ``6m0s``, ``1h2m3.5s``."""
    milliseconds = _milliseconds(seconds)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _milliseconds(seconds: float) -> int:
    # Upwards, so that a client that waits exactly as long is accepted; rounded first, or 0.05 s would become 51 ms.
    return math.ceil(round(seconds * 1000, 6))


def _header(name: str, write: Callable[[float], str]) -> Callable[[float], _Hint]:
    return lambda seconds: _Hint(((name, write(seconds)),))


def _text(write: Callable[[float], str]) -> Callable[[float], _Hint]:
    return lambda seconds: _Hint(text=write(seconds))


def _date(seconds: float) -> str:
    return formatdate(math.ceil(current_clock().wall() + seconds), usegmt=True)


def _decimal(seconds: float) -> str:
    return f"{_milliseconds(seconds) / 1000:.3f}".rstrip("0").rstrip(".")


_HINTS_BY_NAME: Dict[str, Callable[[float], _Hint]] = {
    "retry-after-ms": _header("retry-after-ms", lambda seconds: str(_milliseconds(seconds))),
    "retry-after": _header("retry-after", _decimal),
    "retry-after-date": _header("retry-after", _date),
    "text": _text(lambda seconds: f"Please try again in {go_duration(seconds)}."),
    "text-seconds": _text(lambda seconds: f"Please retry after {math.ceil(seconds)} seconds."),
    "x-ratelimit-reset-requests": _header("x-ratelimit-reset-requests", go_duration),
    "x-ratelimit-reset-tokens": _header("x-ratelimit-reset-tokens", go_duration),
}

HINTS: Tuple[str, ...] = tuple(_HINTS_BY_NAME)
"""The names of the ways in which a server can say how long to wait.

``retry-after-ms`` (OpenAI, Azure: milliseconds); ``retry-after`` (RFC 9110: seconds; fractions are seen);
``retry-after-date`` (RFC 9110: the ``retry-after`` header with an HTTP date, rounded up to whole seconds);
``text`` ("Please try again in 1.2s." in the message); ``text-seconds`` ("Please retry after 33 seconds." in the
message, rounded up); ``x-ratelimit-reset-requests`` and ``-tokens`` (durations such as ``6m0s``).
"""
