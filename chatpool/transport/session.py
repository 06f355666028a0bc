"""The one requests.Session of a transport, made from the user's settings."""

from __future__ import annotations

import copy
import logging
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Iterator, Optional

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.cookies import RequestsCookieJar

from ..redaction import secret

__all__ = ["TransportSession", "make_session"]

log = logging.getLogger("chatpool.transport")

# A user's session may carry these; each is copied, so that changes on either side stay there.
_COPIED = ("auth", "proxies", "verify", "cert", "hooks", "trust_env", "params")

# Brotli and zstd unpack without a bound that urllib3 < 2.6 could set.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate"}


class TransportSession(requests.Session):
    """A session that follows no redirects by itself, keeps no cookies of servers, and closes only its own adapter."""

    own_adapter: Optional[BaseAdapter] = None

    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Iterator[requests.Response]:
        """None: the transport decides which redirects are followed."""
        return iter(())

    def close(self) -> None:
        """Close the transport's own adapter; one of the user's stays as it is."""
        if self.own_adapter is not None:
            self.own_adapter.close()


def make_session(adapter: HTTPAdapter, base_url: str, model: Optional[requests.Session]) -> TransportSession:
    """A session that sends through ``adapter``, with the settings of ``model``.

    An adapter of the user's in ``model``, one that is not requests' own HTTPAdapter, is kept.
    """
    session = TransportSession()
    session.own_adapter = adapter
    session.headers.update(_HEADERS)
    for prefix in ("https://", "http://"):
        session.mount(prefix, adapter)
    # Answers of an API need no cookies, and 64 threads would share the jar.
    session.cookies = RequestsCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    if model is not None:
        _copy_settings(session, model)
        _keep_adapters(session, model, base_url)
    return session


def _copy_settings(session: TransportSession, model: requests.Session) -> None:
    defaults = requests.utils.default_headers()
    theirs = {name: value for name, value in model.headers.items() if defaults.get(name) != value}
    session.headers.update(secret(theirs))
    for name in _COPIED:
        setattr(session, name, _shallow(getattr(model, name)))
    session.proxies = secret(session.proxies)
    for cookie in model.cookies:
        # Straight into the jar: its policy is there for the servers' cookies only.
        requests.cookies.RequestsCookieJar.set_cookie(session.cookies, copy.copy(cookie))


def _shallow(value: Any) -> Any:
    if isinstance(value, dict) and all(isinstance(item, list) for item in value.values()):
        return {key: list(item) for key, item in value.items()}
    # Auth objects hold locks and connections of their own: shared, not copied.
    return copy.copy(value) if hasattr(value, "items") else value


def _keep_adapters(session: TransportSession, model: requests.Session, base_url: str) -> None:
    for prefix, adapter in model.adapters.items():
        if type(adapter) is not HTTPAdapter:
            session.mount(prefix, adapter)
    used = session.get_adapter(base_url + "/")
    if used is not session.own_adapter:
        log.warning(
            "session= brings its own adapter for %s (%s): it is kept, but hard deadlines and cancelling "
            "do not hold in it, only requests' timeouts",
            base_url,
            type(used).__name__,
        )
