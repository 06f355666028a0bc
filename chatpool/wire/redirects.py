"""Which redirects may be followed."""

from __future__ import annotations

from typing import Mapping, Optional, Tuple
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

__all__ = ["redirect_target"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def redirect_target(status: int, headers: Mapping[str, str], url: str) -> Optional[str]:
    """The URL that a 307 or 308 from ``url`` points to, if it has the same origin; otherwise None.

    Only these two keep method and body (RFC 9110, 15.4); another origin must see neither key nor prompt.
    """
    location = headers.get("location") if status in (307, 308) else None
    # Browsers and URL libraries read backslashes and control characters in different ways.
    if not location or "\\" in location or not location.isprintable() or " " in location:
        return None
    try:
        target = urldefrag(urljoin(url, location)).url
        here, there = urlsplit(url), urlsplit(target)
        same = _origin(here) == _origin(there)
    except ValueError:
        return None
    return target if same and there.hostname and "@" not in there.netloc else None


def _origin(parts: SplitResult) -> Tuple[str, Optional[str], Optional[int]]:
    port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, parts.hostname, port
