"""Times as servers write them: so long, or at that moment."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Optional

__all__ = ["SPANS", "duration", "moment", "number", "sane", "wait"]

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
