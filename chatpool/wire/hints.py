"""What a server says about waiting and about its limits."""

from __future__ import annotations

import math
import re
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence

from .moments import SPANS, duration, moment, number, sane, wait
from .resets import KINDS, OF_THE_KEY, OF_THE_SERVER, is_daily, limit_reset, objects_in, quota_reset

__all__ = ["limits", "wait_hint"]

_IN_TEXT = re.compile(rf"(?:try again in|try again after|retry in|retry after|wait) ({SPANS})")

_NO_LIMITS: Mapping[str, str] = {}


def wait_hint(
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
        stated = _stated(headers, "x-ratelimit-", kind)
        of_key = _stated(headers, OF_THE_KEY, kind)
        if of_key and _left(of_key) < _left(stated):
            stated = of_key
        found.update({f"x-ratelimit-{what}-{kind}": value for what, value in stated.items()})
    for name in [f"x-ratelimit-reset-{kind}" for kind in KINDS if f"x-ratelimit-reset-{kind}" in found]:
        if duration(found[name]) is None:
            seconds = wait(found[name], moment(headers.get("date"), wall))
            if seconds is not None:
                found[name] = f"{seconds:.3f}"
    return found


def _stated(headers: Mapping[str, str], prefix: str, kind: str) -> Dict[str, str]:
    """What is said of one limit: ``limit``, ``remaining`` and ``reset``, as far as they are there."""
    pairs = ((what, headers.get(f"{prefix}{what}-{kind}")) for what in ("limit", "remaining", "reset"))
    return {what: value for what, value in pairs if value}


def _left(stated: Mapping[str, str]) -> float:
    left = number(stated.get("remaining"))
    return math.inf if left is None or not left >= 0 else left
