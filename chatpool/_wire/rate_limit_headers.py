"""Rate limits as servers state them: when to come back, how much is left, and when a quota is there again.

Servers say it in ``retry-after`` and ``x-ratelimit-*`` headers, in the body or in the text of a message, as a number
of seconds, a duration, a moment or a date.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Tuple

from .._values import StatedLimit

__all__ = [
    "day_reset",
    "describe_limits",
    "limit_headers_of",
    "names_day",
    "objects_in",
    "parse_duration",
    "parse_moment",
    "quota_reset",
    "resume_line",
    "retry_after_of",
    "stated_limits",
]

_HEADER = "x-ratelimit-"
_KINDS = ("requests", "tokens")  # of limits

# A LiteLLM proxy states its own limit for the key, and passes on the headers of the server behind it.
_KEY_HEADER, _UPSTREAM_HEADER = "x-ratelimit-api_key-", "llm_provider-"
_KIND_PREFIXES = (_HEADER, _KEY_HEADER, f"{_UPSTREAM_HEADER}x-ratelimit-")

# Of one limit, whichever it is: OpenRouter, GitHub, and the draft of the IETF.
_PLAIN_PREFIXES = (_HEADER, "x-rate-limit-", "ratelimit-")

_NO_LIMITS: Mapping[str, str] = {}
_FIELDS_BY_KIND = {
    kind: [(field, f"{_HEADER}{field}-{kind}") for field in ("limit", "remaining", "reset")] for kind in _KINDS
}
_RESETS = [f"{_HEADER}reset-{kind}" for kind in _KINDS]
# Servers send none of a limit or several: these are enough to tell.
_TELLING = frozenset(
    {f"{_HEADER}{field}-{kind}" for field in ("remaining", "limit") for kind in _KINDS}
    | {f"{_KEY_HEADER}limit-{kind}" for kind in _KINDS}
)

_MAX_WAIT_SECONDS = 31 * 86400.0  # a longer wait is a date in the wrong place or a mistake
_JUST_PASSED_SECONDS = 86400.0  # a moment within the last day has just passed
_MIN_RESET_SECONDS = 1e-4
_MAX_UNITS = 1e12  # a larger number limits nothing


# --- when to come back --------------------------------------------------------------------------------------------


def retry_after_of(
    headers: Mapping[str, str], text: str, wall: float, *, resets: bool = True, kind: str = "", body: Any = None
) -> Optional[float]:
    """Return the seconds that the server asks to wait, by the strongest of its hints; None without a plausible one.

    Strongest first: ``retry-after-ms``, ``retry-after`` (seconds, a moment or an HTTP date, RFC 9110 10.2.3), what a
    proxy passes on of these, what the body repeats of them, the error's text, then the resets: of a limit per kind
    (``x-ratelimit-reset-*``), and of a quota, in headers, in the body or in the text.  A quota for the day counts
    before a shorter hint: every refusal of such a server names that one too.

    Args:
        headers: the response headers.  Moments are compared to their ``Date``: both are by the server's clock.
        text: the server's error message.
        wall: now, in seconds since the epoch, for a response without a ``Date``.
        resets: whether resets count; servers send them with every response, and only for a refused one do they say
            when to come back.
        kind: the limit that was hit, ``"requests"`` or ``"tokens"``, where the server says so.
        body: the decoded body; OpenRouter repeats headers in it.
    """
    now = parse_moment(headers.get("date"), wall)
    body_objects = list(objects_in(body))
    hint = next((hint for hint in _hints(headers, body_objects, text, now) if hint is not None), None)
    if not resets:
        return hint
    sources = (headers, *body_objects)
    if hint is None:
        hint = next(filter(None, (_limit_reset(source, kind, now) for source in sources)), None)
    if hint is None or names_day(text):
        reset = quota_reset(sources, text, now)
        return hint if reset is None else max(reset, hint or 0.0)
    return hint


def _hints(
    headers: Mapping[str, str], body_objects: Sequence[Mapping[str, str]], text: str, now: float
) -> Iterator[Optional[float]]:
    for source, prefix in ((headers, ""), (headers, _UPSTREAM_HEADER), *((fields, "") for fields in body_objects)):
        milliseconds = _parse_number(source.get(prefix + "retry-after-ms"))
        yield None if milliseconds is None else _plausible_wait(milliseconds / 1000)
        retry_after = source.get(prefix + "retry-after")
        yield _parse_wait(retry_after, now) if retry_after else None
    match = re.search(_RETRY_TEXT, text.lower()) if text else None
    yield None if match is None else parse_duration(match.group(1))


def objects_in(body: Any) -> Iterator[Dict[str, str]]:
    """Yield the objects of an error body that may say when, with lower-case names and their plain values as text."""
    queue, looked_at = [body], 0
    while queue and looked_at < 20:
        value, looked_at = queue.pop(0), looked_at + 1
        if isinstance(value, list):
            queue += value[:5]
        elif isinstance(value, dict):
            plain = ((name, part) for name, part in value.items() if isinstance(part, (int, float, str)))
            yield {str(name).lower(): str(part) for name, part in plain}
            queue += [part for part in value.values() if isinstance(part, (dict, list))]


def resume_line(seconds: float, wall: float, *, of_day: bool = False) -> str:
    """Return the advice after a refusal that holds for ``seconds``, with the moment in local time.

    Args:
        seconds: how long it holds.
        wall: now, in seconds since the epoch.
        of_day: whether it is a limit per day that refuses.
    """
    minutes = max(1, round(seconds / 60))
    duration = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    moment = datetime.fromtimestamp(60 * math.ceil((wall + seconds) / 60)).astimezone()
    then = "run what is left again then, or wait with wait_for_day" if of_day else "run the failed items again then"
    return f"go on in {duration}, at {moment:%Y-%m-%d %H:%M %Z}: {then}"


# --- resets -------------------------------------------------------------------------------------------------------


def _limit_reset(headers: Mapping[str, str], kind: str, now: float) -> Optional[float]:
    """Return the seconds until the limit that was hit lets through again; None where nothing tells.

    Args:
        headers: of a refusal.
        kind: ``"requests"`` or ``"tokens"``, where the server says which was hit.
        now: the time, in seconds since the epoch.
    """
    resets = _resets_by_kind(headers, now)
    if kind in resets:
        return resets[kind]
    exhausted = [seconds for name, seconds in resets.items() if _is_exhausted(headers, name)]
    return max(exhausted) if exhausted else min(resets.values(), default=None)


def _resets_by_kind(headers: Mapping[str, str], now: float) -> Dict[str, float]:
    """Return the seconds to the reset of each kind of limit; of several headers, the first that says something."""
    resets: Dict[str, float] = {}
    for kind in _KINDS:
        for prefix in _KIND_PREFIXES:
            seconds = _parse_wait(headers.get(f"{prefix}reset-{kind}"), now)
            if seconds:  # 0 and -1 mean "nothing to say" (Azure)
                resets[kind] = seconds
                break
    return resets


def _is_exhausted(headers: Mapping[str, str], kind: str) -> bool:
    return any(headers.get(f"{prefix}remaining-{kind}") == "0" for prefix in _KIND_PREFIXES)


# Of fields in a body, as far as they are no repeated headers.
_RESET_FIELDS = (
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
_DAILY = r"(?i)\bper[- _]?day\b|\bdaily\b|/day\b|\b[rt]pd\b"
_CLOCK_TEXT = r"(?:replenished|reset|resets|renewed|available again) in (?:(\d{1,6})\.)?(\d{1,9}):(\d\d):(\d\d)"
_DATE_TEXT = r"(?i)(?:resets?|renews|try again|available again)(?: at| on| after|:)+ (\d{4}-\d\d-\d\d[ T][\d:.]+ ?\S*)"


def quota_reset(sources: Iterable[Mapping[str, str]], text: str, now: float) -> Optional[float]:
    """Return the seconds until a used-up quota is there again; None where nothing says so, or the moment has passed.

    Args:
        sources: the headers of the refusal and the objects of its body.
        text: the server's message.
        now: the time, in seconds since the epoch.
    """
    return next((seconds for seconds in _quota_resets(sources, text, now) if seconds), None)


def _quota_resets(sources: Iterable[Mapping[str, str]], text: str, now: float) -> Iterator[Optional[float]]:
    for fields in sources:
        # With something left it is another limit that was hit.
        if not any((fields.get(f"{prefix}remaining") or "0").strip() != "0" for prefix in _PLAIN_PREFIXES):
            yield from (_parse_wait(fields.get(f"{prefix}reset"), now) for prefix in _PLAIN_PREFIXES)
        yield from (_parse_wait(fields.get(name), now) for name in _RESET_FIELDS)
    clock = re.search(_CLOCK_TEXT, text.lower())
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        yield _plausible_wait(((days * 24 + hours) * 60 + minutes) * 60.0 + seconds)
    date = re.search(_DATE_TEXT, text)
    yield _parse_wait(date.group(1).rstrip(".,;)"), now) if date else None


_GEMINI_DAILY = r"PerDay(?![a-z])"  # in the ids of its quotas
_MAX_SEARCHED_CHARACTERS = 20_000


def names_day(text: str, body: Any = None) -> bool:
    """Return whether a refusal is about a limit per day, by its message or the ids of quotas in its body."""
    return re.search(_DAILY, text) is not None or _is_gemini_day(body)


def _is_gemini_day(body: Any) -> bool:
    return body is not None and re.search(_GEMINI_DAILY, repr(body)[:_MAX_SEARCHED_CHARACTERS]) is not None


def day_reset(body: Any, hint: Optional[float], now: float) -> float:
    """Return the seconds until a limit per day lets through again.

    Args:
        body: of the refusal.
        hint: seconds that it asks to wait, None where it names none.
        now: the time, in seconds since the epoch.
    """
    # Gemini asks to wait for seconds in any case, and begins its days at midnight in California.
    if _is_gemini_day(body):
        return max(hint or 0.0, _seconds_to_midnight(now, _pacific_time()))
    return _seconds_to_midnight(now, timezone.utc) if hint is None else hint


def _pacific_time() -> tzinfo:
    from zoneinfo import ZoneInfo  # few servers need it

    try:
        return ZoneInfo("America/Los_Angeles")
    except (OSError, ValueError, LookupError):  # the system has no time zones
        return timezone(timedelta(hours=-8))


def _seconds_to_midnight(now: float, zone: tzinfo) -> float:
    today = datetime.fromtimestamp(now, zone)
    midnight = datetime(today.year, today.month, today.day, tzinfo=zone) + timedelta(days=1)
    return max(1.0, midnight.timestamp() - now)


# --- limits -------------------------------------------------------------------------------------------------------


def limit_headers_of(headers: Mapping[str, str], wall: float) -> Mapping[str, str]:
    """Return the ``x-ratelimit-*`` headers that are there, by lower-case name; empty without any.

    Where a proxy states a limit of the key beside the server's, the one that has less left counts, by the server's
    names.  A reset that is a moment becomes a number of seconds.

    Args:
        headers: the response headers.
        wall: now, in seconds since the epoch.
    """
    # This is done for each answer; the transport's headers can tell at once that there is none of several names.
    get, lacks = headers.get, getattr(headers, "lacks", None)
    if lacks(_TELLING) if lacks is not None else not any(get(name) for name in _TELLING):
        return _NO_LIMITS
    limits: Dict[str, str] = {}
    for kind, fields in _FIELDS_BY_KIND.items():
        prefix, of_key = _HEADER, get(f"{_KEY_HEADER}remaining-{kind}")
        if of_key and _remaining(of_key) < _remaining(get(f"{_HEADER}remaining-{kind}")):
            prefix = _KEY_HEADER
        for field, name in fields:
            value = get(f"{prefix}{field}-{kind}")
            if value:
                limits[name] = value
    for name in _RESETS:
        if name in limits and parse_duration(limits[name]) is None:
            seconds = _parse_wait(limits[name], parse_moment(headers.get("date"), wall))
            if seconds is not None:
                limits[name] = f"{seconds:.3f}"
    return limits


def _remaining(text: Optional[str]) -> float:
    remaining = _parse_number(text)
    return math.inf if remaining is None or not remaining >= 0 else remaining


def stated_limits(headers: Mapping[str, str]) -> Tuple[Optional[StatedLimit], Optional[StatedLimit]]:
    """Return the limits of requests and of tokens in ``x-ratelimit-*`` headers, None for one that makes no sense."""
    return _stated_limit(headers, "requests"), _stated_limit(headers, "tokens")


def _stated_limit(headers: Mapping[str, str], kind: str) -> Optional[StatedLimit]:
    limit = _parse_units(headers.get(f"{_HEADER}limit-{kind}"))
    remaining = _parse_units(headers.get(f"{_HEADER}remaining-{kind}"))
    # Azure says -1 where it has nothing to say.
    if limit is None or remaining is None or limit < 1 or remaining < 0 or remaining > limit:
        return None
    # 0 and -1 mean "nothing to say" here too, and a share of a millisecond is a rounded 0.
    reset = parse_duration(headers.get(f"{_HEADER}reset-{kind}"))
    return StatedLimit(limit, remaining, reset if reset and reset >= _MIN_RESET_SECONDS else None)


def describe_limits(limits: Mapping[str, str]) -> str:
    """Return the headers of :func:`limit_headers_of` for a person, "" without any."""
    named = {name.replace(_HEADER, "").replace("-", " "): value for name, value in limits.items()}
    return ", ".join(f"{name} {value}" for name, value in named.items())


# --- numbers, durations, moments ----------------------------------------------------------------------------------

_SECONDS_PER_UNIT = {
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
# One part runs into the next in Go's durations ("1h2m3.5s"), so a unit may be followed by a digit but by no letter.
_PART = rf"(\d{{1,15}}(?:\.\d{{0,20}})?) ?({_UNIT})(?![a-zµ])"
_PLAIN_PART = rf"\d{{1,15}}(?:\.\d{{0,20}})? ?{_UNIT}(?![a-zµ])"
_DURATION = rf"{_PLAIN_PART}(?: ?{_PLAIN_PART})*"

_RETRY_TEXT = rf"(?:try again in|try again after|retry in|retry after|wait) ({_DURATION})"

# Moments in nanoseconds, microseconds or milliseconds since 1970: from this number on, this many per second.
_EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))


def _parse_number(text: Any) -> Optional[float]:
    if not isinstance(text, str) or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _parse_units(text: Optional[str]) -> Optional[float]:
    if not isinstance(text, str):
        return None
    try:
        units = float(text.strip())
    except ValueError:
        return None
    return units if abs(units) <= _MAX_UNITS else None  # NaN is not


def parse_duration(text: Optional[str]) -> Optional[float]:
    """Return ``text`` in seconds: a number, a Go duration (``1h2m3.5s``) or ``33 seconds``; None for anything else."""
    if not isinstance(text, str):
        return None
    text = text.strip().lower()
    seconds = _parse_number(text)
    if seconds is not None:
        return _plausible_wait(seconds)
    if len(text) > 100 or not re.fullmatch(_DURATION, text):
        return None
    return _plausible_wait(sum(float(amount) * _unit_seconds(unit) for amount, unit in re.findall(_PART, text)))


def _unit_seconds(name: str) -> float:
    return _SECONDS_PER_UNIT[name] if name in _SECONDS_PER_UNIT else _SECONDS_PER_UNIT[name.rstrip("s")]


def _plausible_wait(seconds: float) -> Optional[float]:
    """Return ``seconds`` where a call may wait for that long, None otherwise."""
    # Written so that NaN is refused too.
    return seconds if 0 <= seconds <= _MAX_WAIT_SECONDS else None


def _parse_wait(text: Optional[str], now: float) -> Optional[float]:
    """Return the seconds from ``now``: of a duration, a moment in numbers, or a date; 0 for one just passed."""
    seconds = parse_duration(text)
    if seconds is not None or not isinstance(text, str):
        return seconds
    ahead = parse_moment(text, math.nan) - now
    return max(0.0, ahead) if -_JUST_PASSED_SECONDS <= ahead <= _MAX_WAIT_SECONDS else None


def parse_moment(text: Optional[str], default: float) -> float:
    """Return a moment in seconds since the epoch: of a number of these or of smaller parts, or of a date.

    Args:
        text: a header's value, None without one.
        default: what to return for anything else.
    """
    number = _parse_number(text)
    if number is not None:
        return number / next((per_second for least, per_second in _EPOCHS if number >= least), 1.0)
    if not isinstance(text, str):
        return default
    for parse in (parsedate_to_datetime, _parse_iso_date):
        try:
            moment = parse(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
        except (TypeError, ValueError, IndexError, OverflowError):
            continue
    return default


def _parse_iso_date(text: str) -> datetime:
    # Before Python 3.11, fromisoformat knows neither Z nor fractions of any length.
    plain = re.sub(r"\.\d+", "", re.sub(r"( ?UTC|[zZ])$", "+00:00", text.strip()))
    return datetime.fromisoformat(plain)
