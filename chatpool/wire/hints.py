"""What a server says about waiting and about its limits."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Dict, Iterator, Mapping, Optional

__all__ = ["duration", "limits", "wait_hint"]

# A longer wait is a date in the wrong place or a mistake.
_LONGEST = 31 * 86400.0

# More seconds since the epoch than that are milliseconds: the one in the year 5138, the other in 1973.
_LAST_SECOND = 1e11

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
_NO_LIMITS: Mapping[str, str] = {}

# What a LiteLLM proxy says of its own limit for the key, and hands on of the server behind it.
_OF_THE_KEY, _OF_THE_SERVER = "x-ratelimit-api_key-", "llm_provider-"

# Of one limit, whichever it is: OpenRouter, GitHub, and the draft of the IETF.
_PLAIN_RESETS = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")

# A reset within the last day has just happened.
_JUST_NOW = 86400.0


def wait_hint(
    headers: Mapping[str, str], text: str, wall: float, *, resets: bool = True, kind: str = "", body: Any = None
) -> Optional[float]:
    """Seconds the server asks to wait, by the strongest of its hints; None without one that makes sense.

    Strongest first: ``retry-after-ms``, ``retry-after`` (seconds, a moment or an HTTP date, RFC 9110 10.2.3), what a
    proxy hands on of these, the error's text, ``x-ratelimit-reset-*`` and ``x-ratelimit-reset`` (a duration or a
    moment, in seconds or milliseconds since the epoch).

    Args:
        headers: the response headers.  Moments are compared to their ``Date``: both are by the server's clock.
        text: the server's error message.
        wall: now, in seconds since the epoch, for an answer without a ``Date``.
        resets: whether ``x-ratelimit-reset-*`` count; servers send them with every answer, and only for a
            refused one do they say when to come back.
        kind: the limit that was hit, ``"requests"`` or ``"tokens"``, where the server says so.
        body: the decoded body; OpenRouter repeats headers in it.
    """
    now = _moment_of(headers.get("date"), wall)
    inside = _headers_in(body)
    for hint in _hints(headers, inside, text, now):
        if hint is not None:
            return hint
    if not resets:
        return None
    found = _reset(headers, kind, now)
    return found if found is not None or not inside else _reset(inside, kind, now)


def _hints(headers: Mapping[str, str], inside: Mapping[str, str], text: str, now: float) -> Iterator[Optional[float]]:
    for source, prefix in ((headers, ""), (headers, _OF_THE_SERVER), (inside, "")):
        milliseconds = _number(source.get(prefix + "retry-after-ms"))
        yield None if milliseconds is None else _sane(milliseconds / 1000)
        after = source.get(prefix + "retry-after")
        yield _wait(after, now) if after else None
    said = _IN_TEXT.search(text.lower()) if text else None
    yield None if said is None else duration(said.group(1))


def _headers_in(body: Any) -> Mapping[str, str]:
    """The headers that an error's ``metadata`` repeats (OpenRouter), by their names in lower case."""
    error = body.get("error") if isinstance(body, dict) else None
    metadata = error.get("metadata") if isinstance(error, dict) else None
    headers = metadata.get("headers") if isinstance(metadata, dict) else None
    return {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}


def limits(headers: Mapping[str, str], wall: float) -> Mapping[str, str]:
    """The ``x-ratelimit-*`` headers that are there, by lower-case name; empty without any.

    Where a proxy states a limit of the key beside the server's, the one that has less left counts, by the server's
    names.  A reset that is a moment becomes a number of seconds.

    Args:
        headers: the response headers.
        wall: now, in seconds since the epoch.
    """
    # Servers send none or several: looking for one of each kind is enough to tell, and this is done per answer.
    get = headers.get
    if not (get("x-ratelimit-remaining-requests") or get("x-ratelimit-remaining-tokens")) and not (
        get("x-ratelimit-limit-requests")
        or get("x-ratelimit-limit-tokens")
        or get("x-ratelimit-api_key-limit-requests")
        or get("x-ratelimit-api_key-limit-tokens")
    ):
        return _NO_LIMITS
    found: Dict[str, str] = {}
    for kind in _KINDS:
        stated = _stated(headers, "x-ratelimit-", kind)
        of_key = _stated(headers, _OF_THE_KEY, kind)
        if of_key and _left(of_key) < _left(stated):
            stated = of_key
        found.update({f"x-ratelimit-{what}-{kind}": value for what, value in stated.items()})
    for name in [f"x-ratelimit-reset-{kind}" for kind in _KINDS if f"x-ratelimit-reset-{kind}" in found]:
        if duration(found[name]) is None:
            seconds = _wait(found[name], _moment_of(headers.get("date"), wall))
            if seconds is not None:
                found[name] = f"{seconds:.3f}"
    return found


def _stated(headers: Mapping[str, str], prefix: str, kind: str) -> Dict[str, str]:
    """What is said of one limit: ``limit``, ``remaining`` and ``reset``, as far as they are there."""
    pairs = ((what, headers.get(f"{prefix}{what}-{kind}")) for what in ("limit", "remaining", "reset"))
    return {what: value for what, value in pairs if value}


def _left(stated: Mapping[str, str]) -> float:
    left = _number(stated.get("remaining"))
    return math.inf if left is None or not left >= 0 else left


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


def _wait(text: Optional[str], now: float) -> Optional[float]:
    """Seconds from ``now`` that ``text`` means: a duration, a moment in numbers, or a date; 0 for one just past."""
    seconds = duration(text)
    if seconds is not None or not isinstance(text, str):
        return seconds
    at = _moment_of(text, math.nan)
    ahead = at - now
    return max(0.0, ahead) if -_JUST_NOW <= ahead <= _LONGEST else None


def _moment_of(text: Optional[str], otherwise: float) -> float:
    """The moment that ``text`` is, in seconds since the epoch: a number of these or milliseconds, or a date."""
    number = _number(text)
    if number is not None:
        return number / 1000 if number > _LAST_SECOND else number
    if not isinstance(text, str):
        return otherwise
    for parse in (parsedate_to_datetime, _iso):
        try:
            when = parse(text)
            when = when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when
            return when.timestamp()
        except (TypeError, ValueError, IndexError, OverflowError):
            continue
    return otherwise


def _iso(text: str) -> datetime:
    return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))


def _reset(headers: Mapping[str, str], kind: str, now: float) -> Optional[float]:
    """What resets say: that of the limit that was hit, as far as that can be told."""
    resets = _resets(headers, now)
    if kind in resets:
        return resets[kind]
    exhausted = [seconds for name, seconds in resets.items() if _is_used_up(headers, name)]
    if exhausted:
        return max(exhausted)
    if resets:
        return min(resets.values())
    plain = (_wait(headers.get(name), now) for name in _PLAIN_RESETS)
    return next((seconds for seconds in plain if seconds), None)


_RESETS = ("x-ratelimit-", _OF_THE_KEY, f"{_OF_THE_SERVER}x-ratelimit-")


def _resets(headers: Mapping[str, str], now: float) -> Dict[str, float]:
    """Seconds to the reset of each kind of limit; of several, the first that says something."""
    found: Dict[str, float] = {}
    for kind in _KINDS:
        for prefix in _RESETS:
            seconds = _wait(headers.get(f"{prefix}reset-{kind}"), now)
            if seconds:  # 0 and -1 mean "nothing to say" (Azure)
                found[kind] = seconds
                break
    return found


def _is_used_up(headers: Mapping[str, str], kind: str) -> bool:
    return any(headers.get(f"{prefix}remaining-{kind}") == "0" for prefix in _RESETS)
