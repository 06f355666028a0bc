"""Where requests go: the base URL, checked once, and the paths below it."""

from __future__ import annotations

import ipaddress
from typing import Optional
from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigurationError

__all__ = ["is_loopback", "join_url", "normalise_base_url", "without_query"]

_EXAMPLE = "for instance https://api.openai.com/v1"


def normalise_base_url(base_url: str) -> str:
    """``base_url`` without trailing slashes.

    Raises:
        TypeError: it is not a str.
        ConfigurationError: it is not an http(s) URL with a host and nothing but a path after it.
    """
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a str, {_EXAMPLE}, got {type(base_url).__name__}")
    text = base_url.strip()
    problem = _problem(text)
    if problem:
        raise ConfigurationError(f"base_url {problem}")
    return text.rstrip("/")


def _problem(text: str) -> Optional[str]:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError as error:
        return f"cannot be read as a URL ({error}): use one like {_EXAMPLE[13:]}"
    if "@" in parts.netloc:
        return "must not contain a user name or password: pass the key as api_key="
    shown = repr(text)
    if parts.scheme not in ("http", "https"):
        return f"must start with http:// or https://, {_EXAMPLE}, got {shown}"
    if not parts.hostname or any(c.isspace() for c in text):
        return f"must name a host and contain no spaces, {_EXAMPLE}, got {shown}"
    return _trailing_problem(parts, text)


def _trailing_problem(parts: SplitResult, text: str) -> Optional[str]:
    if "?" in text:
        # The query is not shown: keys are often put there.
        return "must not contain a query: pass URL parameters as query={...}"
    if "#" in text:
        return f"must not contain a fragment: leave out the part after '#', got {parts.netloc}{parts.path}"
    return None


def join_url(base_url: str, path: str) -> str:
    """The URL of ``path`` below a normalised ``base_url``.

    Raises:
        ConfigurationError: ``path`` is a URL of its own.
    """
    if "://" in path.split("?", 1)[0]:
        raise ConfigurationError(f"path must be a path below base_url, such as '/models', got {path!r}")
    return f"{base_url}/{path.lstrip('/')}" if path.strip("/") else base_url


def without_query(url: str) -> str:
    """``url`` up to its query string."""
    return url.split("?", 1)[0].split("#", 1)[0]


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this host by a loopback address or as ``localhost``."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
