"""URLs of requests: the base URL and the paths below it, the proxy to go through, and redirects to follow."""

from __future__ import annotations

import ipaddress
from typing import Dict, Mapping, Optional, Tuple
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

from requests.utils import get_environ_proxies, select_proxy, should_bypass_proxies

from .._wire import without_secrets
from ..errors import ConfigurationError

__all__ = [
    "choose_proxies",
    "is_loopback",
    "join_url",
    "normalise_base_url",
    "redirect_method",
    "redirect_target",
    "shown_proxy",
    "without_query",
]


_EXAMPLE = "for instance https://api.openai.com/v1"


def normalise_base_url(base_url: str) -> str:
    """Return ``base_url`` without trailing slashes.

    Raises:
        TypeError: it is not a str.
        ConfigurationError: it is not an http(s) URL with a host and nothing but a path after it.
    """
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a str, {_EXAMPLE}, got {type(base_url).__name__}")
    text = base_url.strip()
    problem = _base_url_problem(text)
    if problem:
        raise ConfigurationError(f"base_url {problem}")
    return text.rstrip("/")


def _base_url_problem(text: str) -> Optional[str]:
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
    """Return the URL of ``path`` below a normalised ``base_url``.

    Raises:
        ConfigurationError: ``path`` is itself a URL.
    """
    if "://" in path.split("?", 1)[0]:
        raise ConfigurationError(f"path must be a path below base_url, such as '/models', got {path!r}")
    return f"{base_url}/{path.lstrip('/')}" if path.strip("/") else base_url


def without_query(url: str) -> str:
    """Return ``url`` up to its query string."""
    return url.split("?", 1)[0].split("#", 1)[0]


def is_loopback(url: str) -> bool:
    """Return whether ``url`` names this host by a loopback address or as ``localhost``."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_GNOME_SOCKS_SCHEME = "socks://"  # as GNOME writes it into ALL_PROXY, without a version; today it is 5


def choose_proxies(url: str, explicit: Mapping[str, Optional[str]], *, trust_env: bool) -> Dict[str, str]:
    """Return the ``proxies=`` mapping for ``url``: at most one entry, for its scheme.

    Proxies of the user beat the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, as requests reads
    them), an empty value there switches the proxy off, and the environment's proxy is never used for this host itself.
    """
    parts = urlsplit(url)
    keys = (f"{parts.scheme}://{parts.hostname}", parts.scheme, f"all://{parts.hostname}", "all")
    no_proxy = explicit.get("no_proxy")
    if any(key in explicit for key in keys):
        bypassed = no_proxy is not None and should_bypass_proxies(url, no_proxy)
        proxy = None if bypassed else next(explicit[key] for key in keys if key in explicit)
    elif trust_env and not is_loopback(url):
        proxy = select_proxy(url, get_environ_proxies(url, no_proxy=no_proxy))
    else:
        proxy = None
    return {parts.scheme: _with_scheme(proxy)} if proxy else {}


def _with_scheme(proxy: str) -> str:
    """Return ``proxy`` with a scheme that requests knows."""
    if "://" not in proxy:
        return f"http://{proxy}"  # requests takes the name in "proxy:3128" for a scheme
    # Names are resolved by the proxy, which may know more of them.
    return f"socks5h://{proxy[len(_GNOME_SOCKS_SCHEME) :]}" if proxy.lower().startswith(_GNOME_SOCKS_SCHEME) else proxy


def shown_proxy(proxies: Mapping[str, str]) -> str:
    """Return the URL of the proxy that :func:`choose_proxies` chose, without user and password; "" for none."""
    return without_secrets(str(next(iter(proxies.values()), ""))).rstrip("/")


_SEE_OTHER = 303
_FOLLOWED = frozenset({_SEE_OTHER, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def redirect_target(status: int, headers: Mapping[str, str], url: str) -> Optional[str]:
    """Return the URL that a 303, 307 or 308 from ``url`` points to, if it has the same origin; otherwise None.

    307 and 308 keep method and body.  A 303 points to the result of the request: servers send it whose model takes
    longer than their gateway waits (RFC 9110, 15.4).  Another origin must see neither key nor prompt.
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
    """Return the method by which a redirect of that status is followed, for a request that was sent by ``method``."""
    return "GET" if status == _SEE_OTHER and method != "HEAD" else method


def _origin(parts: SplitResult) -> Tuple[str, Optional[str], Optional[int]]:
    port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, parts.hostname, port
