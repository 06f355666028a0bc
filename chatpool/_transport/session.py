"""The one requests.Session of a transport, made from the user's settings, and the preparation of its requests."""

from __future__ import annotations

import copy
import logging
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict

from .._redaction import Secret, secret
from .auth import KeyAuth, RequestAuth, request_auth
from .http1 import RequestHeaders, header_problem
from .multipart import OpenedForm
from .settings import TransportSettings

__all__ = ["JSON_TYPE", "Preparer", "TransportSession", "make_session"]

JSON_TYPE = "application/json"
"""Content type of bodies that say no other."""


log = logging.getLogger("chatpool._transport")

# Settings of a user's session; each is copied, so that a change of one does not reach the other.
_COPIED_SETTINGS = ("auth", "proxies", "verify", "cert", "hooks", "trust_env", "params")

# urllib3 < 2.6 cannot bound the size to which Brotli and zstd decompress.
_DEFAULT_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate"}

# Bounded, because paths may come from users' data.
_MAX_TEMPLATES = 64

_NO_TEMPLATES: Dict[str, PreparedRequest] = {}

_BODY_HEADERS = ("Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding")


class TransportSession(requests.Session):
    """A session that follows no redirects by itself, keeps no cookies of servers, and closes only its own adapter."""

    own_adapter: Optional[BaseAdapter] = None

    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Iterator[requests.Response]:
        """Yield nothing: the transport decides which redirects are followed."""
        return iter(())

    def close(self) -> None:
        """Close the transport's own adapter; one of the user's stays as it is."""
        if self.own_adapter is not None:
            self.own_adapter.close()


def make_session(adapter: HTTPAdapter, base_url: str, model: Optional[requests.Session]) -> TransportSession:
    """Return a session that sends through ``adapter``, with the settings of ``model``.

    An adapter of the user's in ``model``, one that is not an HTTPAdapter of requests itself, is kept; one that may
    block, which has no attribute ``never_blocks``, is warned of.
    """
    session = TransportSession()
    session.own_adapter = adapter
    session.headers.update(_DEFAULT_HEADERS)
    for prefix in ("https://", "http://"):
        session.mount(prefix, adapter)
    # An API needs no cookies, and 64 threads would share the jar.
    session.cookies = RequestsCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    if model is not None:
        _copy_settings(session, model)
        _keep_adapters(session, model, base_url)
    return session


def _copy_settings(session: TransportSession, model: requests.Session) -> None:
    defaults = requests.utils.default_headers()
    changed = {name: value for name, value in model.headers.items() if defaults.get(name) != value}
    session.headers.update(secret(changed))
    for name in _COPIED_SETTINGS:
        setattr(session, name, _shallow(getattr(model, name)))
    session.proxies = secret(session.proxies)
    for cookie in model.cookies:
        # Straight into the jar: its policy is for the servers' cookies only.
        requests.cookies.RequestsCookieJar.set_cookie(session.cookies, copy.copy(cookie))


def _shallow(value: Any) -> Any:
    if isinstance(value, dict) and all(isinstance(item, list) for item in value.values()):
        return {key: list(item) for key, item in value.items()}
    # Auth objects hold locks and connections: shared, not copied.
    return copy.copy(value) if hasattr(value, "items") else value


def _keep_adapters(session: TransportSession, model: requests.Session, base_url: str) -> None:
    for prefix, adapter in model.adapters.items():
        if type(adapter) is not HTTPAdapter:
            session.mount(prefix, adapter)
    used = session.get_adapter(base_url + "/")
    if used is not session.own_adapter and not getattr(used, "never_blocks", False):
        log.warning(
            "session= brings its own adapter for %s (%s): it is kept, but hard deadlines and cancelling "
            "do not hold in it, only requests' timeouts",
            base_url,
            type(used).__name__,
        )


class Preparer:
    """Prepares requests, key included, with the settings of a session and a transport.

    The first request for a method and URL leaves a template, from which the later ones are cloned.

    Args:
        session: its headers, params, cookies and hooks go into each request. Its ``auth`` is taken out of it,
            and used only where there is no key and no auth object.
        settings: headers, query and key on top of that.

    Attributes:
        auth: what signs requests in.
    """

    def __init__(self, session: requests.Session, settings: TransportSettings) -> None:
        self._session = session
        self._settings = settings
        user_auth, session.auth = request_auth(session.auth, "session.auth"), None
        if settings.auth.header is not None or isinstance(settings.auth, RequestAuth):
            user_auth = None
        # Even without a key: with no auth= at all, requests would send what .netrc holds for the host.
        self.auth: KeyAuth = user_auth or settings.auth
        self._templates: Dict[str, Dict[str, PreparedRequest]] = {}  # by method and URL

    def prepare(
        self,
        method: str,
        url: str,
        body: Union[bytes, OpenedForm],
        *,
        headers: Optional[Mapping[str, Optional[str]]] = None,
        query: Optional[Mapping[str, str]] = None,
        content_type: str = JSON_TYPE,
    ) -> PreparedRequest:
        """Return a request ready to be sent; ``headers`` and ``query`` go on top of those of the settings.

        An auth object of the user's gets the body as bytes, as it may sign it.
        """
        is_signed = isinstance(self.auth, RequestAuth)
        if is_signed and not isinstance(body, bytes):
            body = body.read()
        # A foreign auth object may leave hooks on the request.
        if headers or query or not isinstance(body, bytes) or not body or is_signed or content_type != JSON_TYPE:
            headers = {"Content-Type": content_type, **(headers or {})} if content_type != JSON_TYPE else headers or {}
            return self._prepare_in_full(method, url, body, self.auth, headers, query or {})
        template = self._templates.get(method, _NO_TEMPLATES).get(url)
        if template is None:
            template = self._add_template(method, url)
        return self.auth(_clone(template, body))

    def redirected(self, prepared: PreparedRequest, url: str, method: str) -> PreparedRequest:
        """Return the same request to another URL of the same origin, without its body where the method changes."""
        copied = prepared.copy()
        copied.prepare_url(url, None)
        if method != prepared.method:
            copied.method, copied.body = method, None
            for name in _BODY_HEADERS:
                copied.headers.pop(name, None)
        if isinstance(self.auth, RequestAuth):  # what it has signed is another URL now
            copied.hooks = {event: list(hooks) for event, hooks in self._session.hooks.items()}
            self.auth.sign_again(copied)
        return copied

    def _add_template(self, method: str, url: str) -> PreparedRequest:
        templates = self._templates.setdefault(method, {})
        if len(templates) >= _MAX_TEMPLATES:
            templates.clear()
        template = self._prepare_in_full(method, url, b"{}", KeyAuth(None), {}, {})
        template.headers = RequestHeaders(template.headers)
        templates[url] = template
        return template

    def _prepare_in_full(
        self,
        method: str,
        url: str,
        body: Union[bytes, OpenedForm],
        auth: Any,
        headers: Mapping[str, Optional[str]],
        query: Mapping[str, str],
    ) -> PreparedRequest:
        # The session's too: requests up to 2.28 accepts only str itself, and checks when they are merged.
        merged = CaseInsensitiveDict(_plain_values(self._session.headers))
        if body:
            merged["Content-Type"] = JSON_TYPE
        merged.update(_plain_values(self._settings.headers))
        merged.update(_plain_values(headers))
        params = _plain_values({**self._settings.query, **query})
        data: Any = body or None  # one to be read is taken for a stream
        request = requests.Request(method, url, headers=merged, data=data, params=params, auth=auth)
        return _checked(self._session.prepare_request(request))


def _plain_values(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the same values with plain texts in the place of secrets."""
    return {name: str(value) if isinstance(value, Secret) else value for name, value in values.items()}


def _checked(prepared: PreparedRequest) -> PreparedRequest:
    """Return the same request, with plain texts in its headers: recorders of requests know no others.

    Raises:
        InvalidHeader: a foreign auth object, cookies or hooks have set a header that requests lets pass.
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
