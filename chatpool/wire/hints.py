"""What a server says about waiting and about its limits."""

from __future__ import annotations

import re
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Dict, Iterator, Mapping, Optional, Tuple

__all__ = ["duration", "limits", "wait_hint"]

# A longer wait is a date in the wrong place or a mistake.
_LONGEST = 31 * 86400.0

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "millisecond": 1e-3,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}
_UNIT = r"(?:milliseconds?|seconds?|secs?|minutes?|mins?|hours?|days?|ns|us|µs|ms|s|m|h|d)"
_PART = re.compile(rf"(\d{{1,15}}(?:\.\d{{0,20}})?) ?({_UNIT})(?![a-zµ])")
_SPAN = rf"\d{{1,15}}(?:\.\d{{0,20}})? ?{_UNIT}(?![a-zµ])"
_DURATION = re.compile(rf"{_SPAN}(?: ?{_SPAN})*")
# One part runs into the next in Go's durations ("1h2m3.5s"), so a unit may be followed by a digit but by no letter.
_IN_TEXT = re.compile(rf"(?:try again in|try again after|retry in|retry after|wait) ({_SPAN}(?: ?{_SPAN})*)")

_KINDS = ("requests", "tokens")
_LIMIT_NAMES = tuple(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in _KINDS)
_NO_LIMITS: Mapping[str, str] = {}


def wait_hint(
    headers: Mapping[str, str], text: str, wall: float, *, resets: bool = True, kind: str = ""
) -> Optional[float]:
    """Seconds the server asks to wait, by the strongest of its hints; None without one that makes sense.

    Strongest first: ``retry-after-ms``, ``retry-after`` (seconds or an HTTP date, RFC 9110 10.2.3), the
    error's text, ``x-ratelimit-reset-*``.

    Args:
        headers: the response headers.
        text: the server's error message.
        wall: now, in seconds since the epoch, to which an HTTP date is compared.
        resets: whether ``x-ratelimit-reset-*`` count; servers send them with every answer, and only for a
            refused one do they say when to come back.
        kind: the limit that was hit, ``"requests"`` or ``"tokens"``, where the server says so.
    """
    for hint in _hints(headers, text, wall):
        if hint is not None:
            return hint
    return _reset(headers, kind) if resets else None


def _hints(headers: Mapping[str, str], text: str, wall: float) -> Iterator[Optional[float]]:
    milliseconds = _number(headers.get("retry-after-ms"))
    yield None if milliseconds is None else _sane(milliseconds / 1000)
    after = headers.get("retry-after")
    seconds = duration(after)
    yield seconds if seconds is not None else _until(after, wall)
    said = _IN_TEXT.search(text.lower()) if text else None
    yield None if said is None else duration(said.group(1))


def limits(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The ``x-ratelimit-*`` headers that are there, by lower-case name; empty without any."""
    # Servers send none or several: looking for one of each kind is enough to tell, and this is done per answer.
    if not (headers.get("x-ratelimit-remaining-requests") or headers.get("x-ratelimit-remaining-tokens")) and not (
        headers.get("x-ratelimit-limit-requests") or headers.get("x-ratelimit-limit-tokens")
    ):
        return _NO_LIMITS
    found: Dict[str, str] = {}
    for name in _LIMIT_NAMES:
        value = headers.get(name)
        if value:
            found[name] = value
    return found


def duration(text: Optional[str]) -> Optional[float]:
    """``text`` as seconds: a number, a Go duration (``1h2m3.5s``) or words (``33 seconds``); None if it is neither."""
    if not isinstance(text, str):
        return None
    text = text.strip().lower()
    number = _number(text)
    if number is not None:
        return _sane(number)
    if len(text) > 100 or not _DURATION.fullmatch(text):
        return None
    return _sane(sum(float(amount) * _unit(unit) for amount, unit in _PART.findall(text)))


def _unit(name: str) -> float:
    return _UNITS[name] if name in _UNITS else _UNITS[name.rstrip("s")]


def _number(text: Optional[str]) -> Optional[float]:
    if not isinstance(text, str) or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _sane(seconds: float) -> Optional[float]:
    # Written so that NaN is refused too.
    return seconds if 0 <= seconds <= _LONGEST else None


def _until(date: Optional[str], wall: float) -> Optional[float]:
    """Seconds from ``wall`` to an HTTP date, 0 if it has passed."""
    if not isinstance(date, str):
        return None
    try:
        when = parsedate_to_datetime(date)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return _sane(max(0.0, when.timestamp() - wall))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _reset(headers: Mapping[str, str], kind: str) -> Optional[float]:
    """What ``x-ratelimit-reset-*`` say: of the limit that was hit, as far as that can be told."""
    resets = _positive(headers, _KINDS)
    if kind in resets:
        return resets[kind]
    exhausted = [seconds for name, seconds in resets.items() if headers.get(f"x-ratelimit-remaining-{name}") == "0"]
    if exhausted:
        return max(exhausted)
    return min(resets.values(), default=None)


def _positive(headers: Mapping[str, str], kinds: Tuple[str, ...]) -> Dict[str, float]:
    # 0 and -1 mean "nothing to say" (Azure).
    pairs = ((kind, duration(headers.get(f"x-ratelimit-reset-{kind}"))) for kind in kinds)
    return {kind: seconds for kind, seconds in pairs if seconds}
