"""From a request's parts to requests' PreparedRequest, key included.

The one requests.Session of a transport, made from the user's settings.
"""

from __future__ import annotations

import copy
import logging
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.cookies import RequestsCookieJar
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict

from .._redaction import Secret, secret
from .auth import KeyAuth
from .headers import LeanHeaders, header_problem
from .settings import TransportSettings

__all__ = ["Preparer", "TransportSession", "make_session"]


log = logging.getLogger("chatpool._transport")

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


# Bounded, because paths may come from users' data.
_MOST_TEMPLATES = 64

_OF_A_BODY = ("Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding")


class Preparer:
    """Prepares requests with the settings of a session and a transport.

    The first request for a method and URL leaves a template that the later ones are cloned from.

    Args:
        session: its headers, params, cookies and hooks go into each request. Its ``auth`` is taken out of it,
            and used only where there is no key.
        settings: headers, query and key on top of that.
    """

    def __init__(self, session: requests.Session, settings: TransportSettings) -> None:
        self._session = session
        self._settings = settings
        theirs, session.auth = session.auth, None
        if isinstance(theirs, tuple) and len(theirs) == 2:
            theirs = HTTPBasicAuth(*theirs)  # which does not show the password
        # Even without a key: with no auth= at all, requests would send what .netrc holds for the host.
        self._auth: Any = theirs if theirs is not None and settings.auth.header is None else settings.auth
        self._templates: Dict[Tuple[str, str], PreparedRequest] = {}

    def prepare(
        self,
        method: str,
        url: str,
        body: bytes,
        *,
        headers: Optional[Mapping[str, Optional[str]]] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> PreparedRequest:
        """A request ready to be sent; ``headers`` and ``query`` go on top of the settings'."""
        # Somebody else's auth may sign the body, or leave hooks on the request.
        if headers or query or not body or not isinstance(self._auth, KeyAuth):
            return self._in_full(method, url, body, self._auth, headers or {}, query or {})
        template = self._templates.get((method, url))
        if template is None:
            template = self._add_template(method, url)
        return self._auth(_clone(template, body))

    def redirected(self, prepared: PreparedRequest, url: str, method: str) -> PreparedRequest:
        """The same request to another URL of the same origin; without its body where the method is another one."""
        copied = prepared.copy()
        copied.prepare_url(url, None)
        if method != prepared.method:
            copied.method, copied.body = method, None
            for name in _OF_A_BODY:
                copied.headers.pop(name, None)
        return copied

    def _add_template(self, method: str, url: str) -> PreparedRequest:
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        template = self._in_full(method, url, b"{}", KeyAuth(None), {}, {})
        template.headers = LeanHeaders(template.headers)
        self._templates[method, url] = template
        return template

    def _in_full(
        self,
        method: str,
        url: str,
        body: bytes,
        auth: Any,
        headers: Mapping[str, Optional[str]],
        query: Mapping[str, str],
    ) -> PreparedRequest:
        # The session's too: requests up to 2.28 takes exact str alone, and looks when they are put together.
        merged = CaseInsensitiveDict(_plain(self._session.headers))
        if body:
            merged["Content-Type"] = "application/json"
        merged.update(_plain(self._settings.headers))
        merged.update(_plain(headers))
        params = _plain({**self._settings.query, **query})
        request = requests.Request(method, url, headers=merged, data=body or None, params=params, auth=auth)
        return _sendable(self._session.prepare_request(request))


def _plain(values: Mapping[str, Any]) -> Dict[str, Any]:
    """The same with plain texts in the place of secrets."""
    return {name: str(value) if isinstance(value, Secret) else value for name, value in values.items()}


def _sendable(prepared: PreparedRequest) -> PreparedRequest:
    """The same request, with plain texts in its headers: what records requests knows no others.

    Raises:
        InvalidHeader: somebody else's auth, cookies or hooks have put something there that requests lets pass.
    """
    headers: List[Tuple[str, Any]] = list(prepared.headers.items())
    for name, value in headers:
        if header_problem(value):
            raise requests.exceptions.InvalidHeader(f"invalid header {name!r}")
        if isinstance(value, (Secret, bytes)):
            prepared.headers[name] = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return prepared


def _clone(template: PreparedRequest, body: bytes) -> PreparedRequest:
    clone = PreparedRequest.__new__(PreparedRequest)
    clone.__dict__.update(template.__dict__)
    clone.headers = template.headers.copy()
    clone.headers["Content-Length"] = str(len(body))
    clone.body = body
    return clone
