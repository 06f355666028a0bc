"""When a quota is there again: a moment, or a wait, in headers, in the body or in words."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Dict, Iterator, Mapping, Optional

from .hints import duration

__all__ = ["is_daily", "reset_after", "resume_line"]

_LONGEST = 31 * 86400.0

# Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size.
_EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (1e8, 1.0))

_RESET_HEADERS = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")
_REMAINING_HEADERS = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")
_MOMENTS = ("resets_at", "reset_at", "resetat", "resetsat", "reset_time", "reset")
_WAITS = ("resets_in_seconds", "reset_in", "retry_after", "retryafter", "retry_after_seconds", "retrydelay")

_DAILY = re.compile(r"\bper[- _]?day\b|\bdaily\b|/day\b|\b[rt]pd\b", re.IGNORECASE)
_CLOCK = re.compile(r"(?:replenished|reset|resets|renewed|available again) in (?:(\d+)\.)?(\d+):(\d\d):(\d\d)")
_SAID = re.compile(
    r"(?:resets?|renews|try again|available again)(?: at| on| after|:)+ (\d{4}-\d\d-\d\d[ T][\d:.]+ ?\S*)",
    re.IGNORECASE,
)


def reset_after(headers: Mapping[str, str], body: Any, text: str, wall: float) -> Optional[float]:
    """Seconds until what is used up is there again; None where nobody says so, or the moment has passed.

    Args:
        headers: of the refusal.
        body: its decoded body, in which OpenRouter repeats headers.
        text: the server's message.
        wall: now, in seconds since the epoch.
    """
    for seconds in _stated(headers, body, text, wall):
        if seconds is not None and 0 < seconds <= _LONGEST:
            return seconds
    return None


def is_daily(text: str) -> bool:
    """Whether a message speaks of a quota for the day."""
    return _DAILY.search(text) is not None


def resume_line(seconds: float, wall: float) -> str:
    """What to do after a refusal that holds for ``seconds``."""
    minutes = max(1, round(seconds / 60))
    wait = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    at = datetime.fromtimestamp(wall + seconds, timezone.utc)
    return f"go on in {wait}, at {at:%Y-%m-%d %H:%M} UTC: run the failed items again then"


def _stated(headers: Mapping[str, str], body: Any, text: str, wall: float) -> Iterator[Optional[float]]:
    yield _of_headers(headers, wall)
    for fields in _objects(body):
        yield _of_headers(fields, wall)
        for name in _WAITS:
            yield duration(str(fields[name])) if name in fields else None
        for name in _MOMENTS:
            yield _until(fields.get(name), wall)
    clock = _CLOCK.search(text.lower())
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        yield ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
    said = _SAID.search(text)
    yield _until(said.group(1).rstrip(".,;)"), wall) if said else None


def _objects(body: Any) -> Iterator[Dict[str, Any]]:
    """The objects of an error body that may say when, with their names in lower case."""
    waiting, seen = [body], 0
    while waiting and seen < 20:
        value, seen = waiting.pop(0), seen + 1
        if isinstance(value, list):
            waiting += value[:5]
        elif isinstance(value, dict):
            yield {name.lower(): part for name, part in value.items() if isinstance(name, str)}
            waiting += [part for part in value.values() if isinstance(part, (dict, list))]


def _of_headers(headers: Mapping[str, Any], wall: float) -> Optional[float]:
    if any(str(headers.get(name) or "0").strip() != "0" for name in _REMAINING_HEADERS):
        return None  # it is another limit that was hit
    for name in _RESET_HEADERS:
        value = headers.get(name)
        seconds = _until(value, wall)
        if seconds is None and value is not None:
            seconds = duration(str(value))
        if seconds:
            return seconds
    return None


def _until(moment: Any, wall: float) -> Optional[float]:
    """Seconds to a moment: a number of units since 1970, or a date; None if it is neither."""
    if isinstance(moment, bool) or not isinstance(moment, (int, float, str)):
        return None
    try:
        number = float(moment)
    except ValueError:
        return _until_date(str(moment), wall)
    scale = next((unit for least, unit in _EPOCHS if number >= least), None)
    return None if scale is None else number / scale - wall


def _until_date(text: str, wall: float) -> Optional[float]:
    text = text.strip()
    for read in (_iso_date, parsedate_to_datetime):
        try:
            when = read(text)
            return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp() - wall
        except (TypeError, ValueError, IndexError, OverflowError):
            continue
    return None


def _iso_date(text: str) -> datetime:
    # Before Python 3.11, fromisoformat knows neither Z nor fractions of any length.
    whole = re.sub(r"\.\d+", "", re.sub(r"( ?UTC|Z)$", "+00:00", text))
    return datetime.fromisoformat(whole)
