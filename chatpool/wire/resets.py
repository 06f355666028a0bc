"""When a limit lets through again, or a quota is there again: in headers, in the body or in words."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional

from .moments import sane, wait

__all__ = [
    "KINDS",
    "OF_THE_KEY",
    "OF_THE_SERVER",
    "is_daily",
    "limit_reset",
    "objects_in",
    "quota_reset",
    "resume_line",
]

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
    return next((seconds for seconds in _stated(sources, text, now) if seconds), None)


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


def _stated(sources: Iterable[Mapping[str, str]], text: str, now: float) -> Iterator[Optional[float]]:
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
