"""The ways in which servers say how long to wait.

The parts of an HTTP answer around its content.
"""

from __future__ import annotations

import math
from email.utils import formatdate
from http.client import responses as _REASONS  # noqa: N812 - a table, used as a constant
from typing import Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ..clock import current_clock
from ..errors import ConfigurationError

__all__ = [
    "HINTS",
    "HeaderFields",
    "Said",
    "chunked",
    "go_duration",
    "header_pairs",
    "reason_phrase",
    "response_head",
    "say",
]


HeaderFields = Union[Mapping[str, str], Sequence[Tuple[str, str]]]


def reason_phrase(status: int, default: str) -> str:
    """The reason phrase of an HTTP status."""
    return _REASONS.get(status, default)


def header_pairs(fields: HeaderFields) -> Tuple[Tuple[str, str], ...]:
    """Header fields as pairs, checked.

    Raises:
        ConfigurationError: a name or value holds a line break.
    """
    given = fields.items() if isinstance(fields, Mapping) else fields
    pairs = tuple((str(name), str(value)) for name, value in given)
    for name, value in pairs:
        if any(mark in name + value for mark in "\r\n"):
            raise ConfigurationError(f"the header field {name!r} holds a line break")
    return pairs


def response_head(status: int, fields: Mapping[str, str], pairs: Sequence[Tuple[str, str]]) -> bytes:
    """The head of an answer; ``pairs`` replace the ``fields`` of the same name."""
    replaced = {name.lower() for name, _ in pairs}
    kept = [(name, value) for name, value in fields.items() if name not in replaced]
    lines = "".join(f"{name}: {value}\r\n" for name, value in (*kept, *pairs))
    return f"HTTP/1.1 {status} {reason_phrase(status, 'Unknown')}\r\n{lines}\r\n".encode("latin-1")


def chunked(payload: bytes, size: int, *, last: bool = True) -> bytes:
    """``payload`` in chunks of ``size`` bytes; with the one that ends the body if they are the ``last``."""
    chunks = [payload[start : start + size] for start in range(0, len(payload), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""][: None if last else -1])


class Said(NamedTuple):
    """A wait as a server says it: header fields, and a sentence of the message."""

    headers: Tuple[Tuple[str, str], ...] = ()
    text: str = ""


def say(hint: Optional[str], seconds: float) -> Said:
    """Say "wait for so many seconds" in the way named ``hint``; None says nothing."""
    return Said() if hint is None else _WAYS[hint](seconds)


def go_duration(seconds: float) -> str:
    """A duration as Go prints it and OpenAI sends it: ``599ms``, ``1.2s``, ``6m0s``, ``1h2m3.5s``."""
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
    # Upwards, so that whoever waits as long as told is let in; rounded first, or 0.05 s would become 51 ms.
    return math.ceil(round(seconds * 1000, 6))


def _header(name: str, write: Callable[[float], str]) -> Callable[[float], Said]:
    return lambda seconds: Said(((name, write(seconds)),))


def _text(write: Callable[[float], str]) -> Callable[[float], Said]:
    return lambda seconds: Said(text=write(seconds))


def _date(seconds: float) -> str:
    return formatdate(math.ceil(current_clock().wall() + seconds), usegmt=True)


def _decimal(seconds: float) -> str:
    return f"{_milliseconds(seconds) / 1000:.3f}".rstrip("0").rstrip(".")


_WAYS: Dict[str, Callable[[float], Said]] = {
    "retry-after-ms": _header("retry-after-ms", lambda seconds: str(_milliseconds(seconds))),
    "retry-after": _header("retry-after", _decimal),
    "retry-after-date": _header("retry-after", _date),
    "text": _text(lambda seconds: f"Please try again in {go_duration(seconds)}."),
    "text-seconds": _text(lambda seconds: f"Please retry after {math.ceil(seconds)} seconds."),
    "x-ratelimit-reset-requests": _header("x-ratelimit-reset-requests", go_duration),
    "x-ratelimit-reset-tokens": _header("x-ratelimit-reset-tokens", go_duration),
}

HINTS: Tuple[str, ...] = tuple(_WAYS)
"""The names of the ways in which a server can say how long to wait.

``retry-after-ms`` (OpenAI, Azure: milliseconds); ``retry-after`` (RFC 9110: seconds; fractions are seen);
``retry-after-date`` (RFC 9110: the ``retry-after`` header with an HTTP date, rounded up to whole seconds);
``text`` ("Please try again in 1.2s." in the message); ``text-seconds`` ("Please retry after 33 seconds." in the
message, rounded up); ``x-ratelimit-reset-requests`` and ``-tokens`` (durations such as ``6m0s``).
"""
