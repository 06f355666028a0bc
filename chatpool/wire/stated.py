"""The rate limits a server states, as numbers."""

from __future__ import annotations

import math
from typing import Mapping, Optional, Tuple

from ..measures import StatedLimit
from .moments import duration

__all__ = ["stated_limits"]


def stated_limits(headers: Mapping[str, str]) -> Tuple[Optional[StatedLimit], Optional[StatedLimit]]:
    """The limits of requests and of tokens in ``x-ratelimit-*`` headers, None for one that makes no sense."""
    return _stated(headers, "requests"), _stated(headers, "tokens")


def _stated(headers: Mapping[str, str], kind: str) -> Optional[StatedLimit]:
    limit = _count(headers.get(f"x-ratelimit-limit-{kind}"))
    remaining = _count(headers.get(f"x-ratelimit-remaining-{kind}"))
    # Azure says -1 where it has nothing to say.
    if limit is None or remaining is None or limit < 1 or remaining < 0 or remaining > limit:
        return None
    # 0 and -1 mean "nothing to say" here too.
    return StatedLimit(limit, remaining, duration(headers.get(f"x-ratelimit-reset-{kind}")) or None)


def _count(text: Optional[str]) -> Optional[float]:
    if not isinstance(text, str):
        return None
    try:
        count = float(text.strip())
    except ValueError:
        return None
    return count if math.isfinite(count) else None
