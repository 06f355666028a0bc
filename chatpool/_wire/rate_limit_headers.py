"""When a limit lets through again, or a quota is there again: in headers, in the body or in words.

Times as servers write them: so long, or at that moment.

What a server says about waiting and about its limits.

The rate limits a server states, as numbers.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Tuple

from .._values import StatedLimit

__all__ = [
    "KINDS",
    "OF_THE_KEY",
    "OF_THE_SERVER",
    "SPANS",
    "duration",
    "is_daily",
    "limit_reset",
    "limits",
    "moment",
    "number",
    "objects_in",
    "quota_reset",
    "resume_line",
    "retry_after_of",
    "sane",
    "stated_limits",
    "wait",
]


# A longer wait is a date in the wrong place or a mistake.
_LONGEST = 31 * 86400.0

# A moment within the last day has just passed.
_JUST_NOW = 86400.0

# Nanoseconds, microseconds or milliseconds since 1970, told apart from seconds by their size.
_EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))

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
# One part runs into the next in Go's durations ("1h2m3.5s"), so a unit may be followed by a digit but by no letter.
SPANS = rf"{_SPAN}(?: ?{_SPAN})*"
"""Finds a duration with its units in a text, in lower case."""

_DURATION = re.compile(SPANS)


def duration(text: Optional[str]) -> Optional[float]:
    """``text`` as seconds: a number, a Go duration (``1h2m3.5s``) or words (``33 seconds``); None if it is neither."""
    if not isinstance(text, str):
        return None
    text = text.strip().lower()
    seconds = number(text)
    if seconds is not None:
        return sane(seconds)
    if len(text) > 100 or not _DURATION.fullmatch(text):
        return None
    return sane(sum(float(amount) * _unit(unit) for amount, unit in _PART.findall(text)))


def _unit(name: str) -> float:
    return _UNITS[name] if name in _UNITS else _UNITS[name.rstrip("s")]


def number(text: Any) -> Optional[float]:
    """``text`` as a number, None if it is none."""
    if not isinstance(text, str) or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def sane(seconds: float) -> Optional[float]:
    """``seconds`` where somebody may wait for so long, None otherwise."""
    # Written so that NaN is refused too.
    return seconds if 0 <= seconds <= _LONGEST else None


def wait(text: Optional[str], now: float) -> Optional[float]:
    """Seconds from ``now`` that ``text`` means: a duration, a moment in numbers, or a date; 0 for one just past."""
    seconds = duration(text)
    if seconds is not None or not isinstance(text, str):
        return seconds
    ahead = moment(text, math.nan) - now
    return max(0.0, ahead) if -_JUST_NOW <= ahead <= _LONGEST else None


def moment(text: Optional[str], otherwise: float) -> float:
    """The moment that ``text`` is, in seconds since the epoch: a number of these or of smaller parts, or a date."""
    count = number(text)
    if count is not None:
        return count / next((parts for least, parts in _EPOCHS if count >= least), 1.0)
    if not isinstance(text, str):
        return otherwise
    for read in (parsedate_to_datetime, _iso_date):
        try:
            when = read(text)
            return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()
        except (TypeError, ValueError, IndexError, OverflowError):
            continue
    return otherwise


def _iso_date(text: str) -> datetime:
    # Before Python 3.11, fromisoformat knows neither Z nor fractions of any length.
    whole = re.sub(r"\.\d+", "", re.sub(r"( ?UTC|[zZ])$", "+00:00", text.strip()))
    return datetime.fromisoformat(whole)


KINDS = ("requests", "tokens")

# What a LiteLLM proxy says of its own limit for the key, and hands on of the server behind it.
OF_THE_KEY, OF_THE_SERVER = "x-ratelimit-api_key-", "llm_provider-"
_OF_KINDS = ("x-ratelimit-", OF_THE_KEY, f"{OF_THE_SERVER}x-ratelimit-")

# Of one limit, whichever it is: OpenRouter, GitHub, and the draft of the IETF.
_PLAIN = ("x-ratelimit-", "x-rate-limit-", "ratelimit-")

# Of fields in a body, as far as they are no repeated headers.
_FIELDS = (
    "resets_in_seconds",
    "reset_in",
    "retry_after",
    "retryafter",
    "retry_after_seconds",
    "retrydelay",
    "resets_at",
    "reset_at",
    "resetat",
    "resetsat",
    "reset_time",
    "reset",
)

_DAILY = re.compile(r"\bper[- _]?day\b|\bdaily\b|/day\b|\b[rt]pd\b", re.IGNORECASE)
_CLOCK = re.compile(r"(?:replenished|reset|resets|renewed|available again) in (?:(\d{1,6})\.)?(\d{1,9}):(\d\d):(\d\d)")
_SAID = re.compile(
    r"(?:resets?|renews|try again|available again)(?: at| on| after|:)+ (\d{4}-\d\d-\d\d[ T][\d:.]+ ?\S*)",
    re.IGNORECASE,
)


def limit_reset(headers: Mapping[str, str], kind: str, now: float) -> Optional[float]:
    """Seconds until the limit that was hit lets through again, as far as that can be told; None without a word of it.

    Args:
        headers: of a refusal.
        kind: ``"requests"`` or ``"tokens"``, where the server says which was hit.
        now: the time, in seconds since the epoch.
    """
    resets = _of_kinds(headers, now)
    if kind in resets:
        return resets[kind]
    exhausted = [seconds for name, seconds in resets.items() if _is_used_up(headers, name)]
    return max(exhausted) if exhausted else min(resets.values(), default=None)


def quota_reset(sources: Iterable[Mapping[str, str]], text: str, now: float) -> Optional[float]:
    """Seconds until what is used up is there again; None where nobody says so, or the moment has passed.

    Args:
        sources: the headers of the refusal and the objects of its body.
        text: the server's message.
        now: the time, in seconds since the epoch.
    """
    return next((seconds for seconds in _reset_times(sources, text, now) if seconds), None)


def is_daily(text: str) -> bool:
    """Whether a message speaks of a quota for the day."""
    return _DAILY.search(text) is not None


def resume_line(seconds: float, wall: float) -> str:
    """What to do after a refusal that holds for ``seconds``."""
    minutes = max(1, round(seconds / 60))
    wait = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    at = datetime.fromtimestamp(wall + seconds, timezone.utc)
    return f"go on in {wait}, at {at:%Y-%m-%d %H:%M} UTC: run the failed items again then"


def objects_in(body: Any) -> Iterator[Dict[str, str]]:
    """The objects of an error body that may say when, with their names in lower case and their plain values as text."""
    waiting, seen = [body], 0
    while waiting and seen < 20:
        value, seen = waiting.pop(0), seen + 1
        if isinstance(value, list):
            waiting += value[:5]
        elif isinstance(value, dict):
            plain = ((name, part) for name, part in value.items() if isinstance(part, (int, float, str)))
            yield {str(name).lower(): str(part) for name, part in plain}
            waiting += [part for part in value.values() if isinstance(part, (dict, list))]


def _reset_times(sources: Iterable[Mapping[str, str]], text: str, now: float) -> Iterator[Optional[float]]:
    for fields in sources:
        # With something left it is another limit that was hit.
        if not any((fields.get(f"{prefix}remaining") or "0").strip() != "0" for prefix in _PLAIN):
            yield from (wait(fields.get(f"{prefix}reset"), now) for prefix in _PLAIN)
        yield from (wait(fields.get(name), now) for name in _FIELDS)
    clock = _CLOCK.search(text.lower())
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        yield sane(((days * 24 + hours) * 60 + minutes) * 60.0 + seconds)
    said = _SAID.search(text)
    yield wait(said.group(1).rstrip(".,;)"), now) if said else None


def _of_kinds(headers: Mapping[str, str], now: float) -> Dict[str, float]:
    """Seconds to the reset of each kind of limit; of several, the first that says something."""
    found: Dict[str, float] = {}
    for kind in KINDS:
        for prefix in _OF_KINDS:
            seconds = wait(headers.get(f"{prefix}reset-{kind}"), now)
            if seconds:  # 0 and -1 mean "nothing to say" (Azure)
                found[kind] = seconds
                break
    return found


def _is_used_up(headers: Mapping[str, str], kind: str) -> bool:
    return any(headers.get(f"{prefix}remaining-{kind}") == "0" for prefix in _OF_KINDS)


_IN_TEXT = re.compile(rf"(?:try again in|try again after|retry in|retry after|wait) ({SPANS})")

_NO_LIMITS: Mapping[str, str] = {}


def retry_after_of(
    headers: Mapping[str, str], text: str, wall: float, *, resets: bool = True, kind: str = "", body: Any = None
) -> Optional[float]:
    """Seconds the server asks to wait, by the strongest of its hints; None without one that makes sense.

    Strongest first: ``retry-after-ms``, ``retry-after`` (seconds, a moment or an HTTP date, RFC 9110 10.2.3), what a
    proxy hands on of these, what the body repeats of them, the error's text, then the resets: of a limit per kind
    (``x-ratelimit-reset-*``), and of a quota, in headers, in the body or in words.  A quota for the day counts before
    a shorter hint: every refusal of such a server names that one too.

    Args:
        headers: the response headers.  Moments are compared to their ``Date``: both are by the server's clock.
        text: the server's error message.
        wall: now, in seconds since the epoch, for an answer without a ``Date``.
        resets: whether resets count; servers send them with every answer, and only for a refused one do they say
            when to come back.
        kind: the limit that was hit, ``"requests"`` or ``"tokens"``, where the server says so.
        body: the decoded body; OpenRouter repeats headers in it.
    """
    now = moment(headers.get("date"), wall)
    bodies = list(objects_in(body))
    found = next((hint for hint in _hints(headers, bodies, text, now) if hint is not None), None)
    if not resets:
        return found
    sources = (headers, *bodies)
    if found is None:
        found = next(filter(None, (limit_reset(source, kind, now) for source in sources)), None)
    if found is None or is_daily(text):
        again = quota_reset(sources, text, now)
        return found if again is None else max(again, found or 0.0)
    return found


def _hints(
    headers: Mapping[str, str], bodies: Sequence[Mapping[str, str]], text: str, now: float
) -> Iterator[Optional[float]]:
    for source, prefix in ((headers, ""), (headers, OF_THE_SERVER), *((fields, "") for fields in bodies)):
        milliseconds = number(source.get(prefix + "retry-after-ms"))
        yield None if milliseconds is None else sane(milliseconds / 1000)
        after = source.get(prefix + "retry-after")
        yield wait(after, now) if after else None
    said = _IN_TEXT.search(text.lower()) if text else None
    yield None if said is None else duration(said.group(1))


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
    for kind in KINDS:
        stated = _window_fields(headers, "x-ratelimit-", kind)
        of_key = _window_fields(headers, OF_THE_KEY, kind)
        if of_key and _left(of_key) < _left(stated):
            stated = of_key
        found.update({f"x-ratelimit-{what}-{kind}": value for what, value in stated.items()})
    for name in [f"x-ratelimit-reset-{kind}" for kind in KINDS if f"x-ratelimit-reset-{kind}" in found]:
        if duration(found[name]) is None:
            seconds = wait(found[name], moment(headers.get("date"), wall))
            if seconds is not None:
                found[name] = f"{seconds:.3f}"
    return found


def _window_fields(headers: Mapping[str, str], prefix: str, kind: str) -> Dict[str, str]:
    """What is said of one limit: ``limit``, ``remaining`` and ``reset``, as far as they are there."""
    pairs = ((what, headers.get(f"{prefix}{what}-{kind}")) for what in ("limit", "remaining", "reset"))
    return {what: value for what, value in pairs if value}


def _left(stated: Mapping[str, str]) -> float:
    left = number(stated.get("remaining"))
    return math.inf if left is None or not left >= 0 else left


_LARGEST = 1e12  # units; a larger number limits nothing
_SHORTEST = 1e-4  # seconds to a reset


def stated_limits(headers: Mapping[str, str]) -> Tuple[Optional[StatedLimit], Optional[StatedLimit]]:
    """The limits of requests and of tokens in ``x-ratelimit-*`` headers, None for one that makes no sense."""
    return _rate_limit(headers, "requests"), _rate_limit(headers, "tokens")


def _rate_limit(headers: Mapping[str, str], kind: str) -> Optional[StatedLimit]:
    limit = _count(headers.get(f"x-ratelimit-limit-{kind}"))
    remaining = _count(headers.get(f"x-ratelimit-remaining-{kind}"))
    # Azure says -1 where it has nothing to say.
    if limit is None or remaining is None or limit < 1 or remaining < 0 or remaining > limit:
        return None
    # 0 and -1 mean "nothing to say" here too, and a share of a millisecond is a rounded 0.
    reset = duration(headers.get(f"x-ratelimit-reset-{kind}"))
    return StatedLimit(limit, remaining, reset if reset and reset >= _SHORTEST else None)


def _count(text: Optional[str]) -> Optional[float]:
    if not isinstance(text, str):
        return None
    try:
        count = float(text.strip())
    except ValueError:
        return None
    return count if abs(count) <= _LARGEST else None  # NaN is not
