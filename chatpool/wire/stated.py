"""The rate limits a server states, as numbers."""

from __future__ import annotations

from typing import Mapping, Optional, Tuple

from ..measures import StatedLimit
from .moments import duration

__all__ = ["stated_limits"]

_LARGEST = 1e12  # units; a larger number limits nothing
_SHORTEST = 1e-4  # seconds to a reset


def stated_limits(headers: Mapping[str, str]) -> Tuple[Optional[StatedLimit], Optional[StatedLimit]]:
    """The limits of requests and of tokens in ``x-ratelimit-*`` headers, None for one that makes no sense."""
    return _stated(headers, "requests"), _stated(headers, "tokens")


def _stated(headers: Mapping[str, str], kind: str) -> Optional[StatedLimit]:
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
