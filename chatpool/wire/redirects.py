"""Which redirects may be followed, and how."""

from __future__ import annotations

from typing import Mapping, Optional, Tuple
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

__all__ = ["redirect_method", "redirect_target"]

_SEE_OTHER = 303
_FOLLOWED = frozenset({_SEE_OTHER, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def redirect_target(status: int, headers: Mapping[str, str], url: str) -> Optional[str]:
    """The URL that a 303, 307 or 308 from ``url`` points to, if it has the same origin; otherwise None.

    307 and 308 keep method and body; 303 has the answer of what was sent somewhere else, as servers do whose model
    takes longer than their gateway waits (RFC 9110, 15.4). Another origin must see neither key nor prompt.
    """
    location = headers.get("location") if status in _FOLLOWED else None
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


def redirect_method(status: int, method: str) -> str:
    """The method by which a redirect of that status is followed, for a request that was sent by ``method``."""
    return "GET" if status == _SEE_OTHER and method != "HEAD" else method


def _origin(parts: SplitResult) -> Tuple[str, Optional[str], Optional[int]]:
    port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, parts.hostname, port
