"""The ways in which servers say how long to wait."""

from __future__ import annotations

import math
from email.utils import formatdate
from typing import Callable, Dict, NamedTuple, Optional, Tuple

from ..clock import current_clock

__all__ = ["HINTS", "Said", "duration", "say"]


class Said(NamedTuple):
    """A wait as a server says it: header fields, and a sentence of the message."""

    headers: Tuple[Tuple[str, str], ...] = ()
    text: str = ""


def say(hint: Optional[str], seconds: float) -> Said:
    """Say "wait for so many seconds" in the way named ``hint``; None says nothing."""
    return Said() if hint is None else _WAYS[hint](seconds)


def duration(seconds: float) -> str:
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
    "text": _text(lambda seconds: f"Please try again in {duration(seconds)}."),
    "text-seconds": _text(lambda seconds: f"Please retry after {math.ceil(seconds)} seconds."),
    "x-ratelimit-reset-requests": _header("x-ratelimit-reset-requests", duration),
    "x-ratelimit-reset-tokens": _header("x-ratelimit-reset-tokens", duration),
}

HINTS: Tuple[str, ...] = tuple(_WAYS)
"""The names of the ways in which a server can say how long to wait.

``retry-after-ms`` (OpenAI, Azure: milliseconds); ``retry-after`` (RFC 9110: seconds; fractions are seen);
``retry-after-date`` (RFC 9110: the ``retry-after`` header with an HTTP date, rounded up to whole seconds);
``text`` ("Please try again in 1.2s." in the message); ``text-seconds`` ("Please retry after 33 seconds." in the
message, rounded up); ``x-ratelimit-reset-requests`` and ``-tokens`` (durations such as ``6m0s``).
"""
