"""Which proxy a URL goes through."""

from __future__ import annotations

from typing import Dict, Mapping, Optional
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy, should_bypass_proxies

from ..wire import without_secrets
from .urls import is_loopback

__all__ = ["choose_proxies", "shown_proxy"]

_GNOMES = "socks://"  # as GNOME writes it into ALL_PROXY, for SOCKS of whatever version: 5 it is today


def choose_proxies(url: str, explicit: Mapping[str, Optional[str]], *, trust_env: bool) -> Dict[str, str]:
    """The ``proxies=`` mapping for ``url``: at most one entry, for its scheme.

    What the user gave beats the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, as requests reads
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
    return {parts.scheme: _in_full(proxy)} if proxy else {}


def _in_full(proxy: str) -> str:
    """``proxy`` with a scheme that requests knows."""
    if "://" not in proxy:
        return f"http://{proxy}"  # requests takes the name in "proxy:3128" for a scheme
    # Names are resolved by the proxy, which may know more of them.
    return f"socks5h://{proxy[len(_GNOMES) :]}" if proxy.lower().startswith(_GNOMES) else proxy


def shown_proxy(proxies: Mapping[str, str]) -> str:
    """The URL of the proxy that :func:`choose_proxies` chose, without user and password; "" for none."""
    return without_secrets(str(next(iter(proxies.values()), ""))).rstrip("/")
