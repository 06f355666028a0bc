"""HTTPAdapter of the transport: guarded connections, as many as there are workers, and responses read whole."""

from __future__ import annotations

import datetime
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Dict, Mapping, Optional
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.exceptions import InvalidProxyURL
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from requests.utils import prepend_scheme_if_needed, select_proxy
from urllib3.response import HTTPResponse

from .._wire import is_success
from .body import WholeResponse, read_body
from .connections import guarded_pool_class
from .exchange import current_exchange
from .http1 import ParsedHeaders
from .tcp import keep_alive_options
from .tls import Trust

__all__ = ["TransportAdapter"]


Proxies = Optional[Mapping[str, str]]

# Bounded, because paths may come from users' data.
_MAX_CACHED_URLS = 64
_MAX_KEPT = 65_536  # connections: there are no more ports


class TransportAdapter(HTTPAdapter):
    """Sends over guarded connections.

    Only hooks are overridden: ``send`` is that of requests, so that mocks of it work.  The certificates are chosen once
    for all connections; the ``verify`` and ``cert`` that requests passes around are for adapters of the user's.

    Args:
        max_workers: threads that send at the same time, and connections that are kept.
        trust: the certificates.
        max_response_bytes: the largest body to be read.
    """

    def __init__(self, max_workers: int, trust: Trust, max_response_bytes: int) -> None:
        self._trust = trust
        self._max_response_bytes = max_response_bytes
        self._pools: Dict[str, Any] = {}
        self._targets: Dict[str, str] = {}
        self._closing = threading.Lock()
        # A pool of urllib3 begins with as many empty places, and takes time for each.
        super().__init__(pool_connections=8, pool_maxsize=min(max_workers, _MAX_KEPT))

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        """Make the pools of direct connections guarded ones."""
        super().init_poolmanager(connections, maxsize, block, socket_options=keep_alive_options(), **kwargs)
        _guard(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make the pools of connections through a proxy guarded ones."""
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        if proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = self._trust.context()
        return _guard(super().proxy_manager_for(proxy, socket_options=keep_alive_options(), **kwargs))

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Proxies = None, cert: Any = None
    ) -> Any:
        """Return the pool for a request (requests from 2.32.2 on)."""
        return self.get_connection(str(request.url), proxies)

    # Its name in 2.32.0 and 2.32.1.
    _get_connection = get_connection_with_tls_context

    def get_connection(self, url: Any, proxies: Proxies = None) -> Any:
        """Return the pool for a URL (the hook of requests up to 2.31)."""
        pool = None if proxies else self._pools.get(url)
        if pool is None:
            pool = self._find_pool(url, select_proxy(url, proxies))
            if not proxies:
                _add_to_cache(self._pools, url, pool)
        return pool

    def request_url(self, request: PreparedRequest, proxies: Proxies) -> str:
        """Return the target of the request line: a path, or for a forwarding proxy a URL."""
        url = str(request.url)
        target = None if proxies else self._targets.get(url)
        if target is None:
            target = super().request_url(request, proxies)
            if not proxies:
                _add_to_cache(self._targets, url, target)
        return target

    def close(self) -> None:
        """Close the idle connections, also of pools that are still referred to: urllib3 (2.x) leaves those open."""
        if not self._closing.acquire(blocking=False):
            return  # another thread is at it: two in urllib3's close() at once may find its pool gone
        try:
            self._close_pools()
        finally:
            self._closing.release()

    def _close_pools(self) -> None:
        self._pools.clear()
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it can be iterated over in no other way
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    def _find_pool(self, url: str, proxy: Optional[str]) -> Any:
        manager = self._proxied(proxy) if proxy else self.poolmanager
        parts = urlsplit(url)
        tls = "https" in (parts.scheme, urlsplit(proxy or "").scheme)
        context = {"ssl_context": self._trust.context()} if tls else None
        return manager.connection_from_host(parts.hostname, parts.port, parts.scheme, pool_kwargs=context)

    def _proxied(self, proxy: str) -> Any:
        url = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
        if not urlsplit(url).hostname:
            raise InvalidProxyURL("the proxy's URL names no host")
        return self.proxy_manager_for(url)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing: the shared context holds the certificates; set here, each connection would load them."""

    def build_response(self, req: PreparedRequest, resp: Any) -> requests.Response:
        """Return the response of requests, with its body read unless it is to be streamed."""
        if type(resp) is not HTTPResponse:
            return super().build_response(req, resp)  # that of a mock
        exchange, file = current_exchange(), None
        if exchange is not None and is_success(resp.status):
            if exchange.wants_stream:
                return super().build_response(req, resp)
            file = exchange.answer_file
        return _whole_response(req, resp, read_body(resp, self._max_response_bytes, file), self)


def _add_to_cache(cache: Dict[str, Any], url: str, value: Any) -> None:
    if len(cache) >= _MAX_CACHED_URLS:
        cache.clear()
    cache[url] = value


def _guard(manager: Any) -> Any:
    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: guarded_pool_class(base) for scheme, base in classes.items()}
    return manager


_NO_TIME = datetime.timedelta(0)


class _NoCookies(RequestsCookieJar):
    """An empty jar that stays empty, so that all responses can share it."""

    def set_cookie(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


_NO_COOKIES = _NoCookies(policy=DefaultCookiePolicy(allowed_domains=[]))


def _whole_response(request: PreparedRequest, raw: HTTPResponse, content: bytes, adapter: Any) -> requests.Response:
    """Return the same as ``HTTPAdapter.build_response``, for a response whose body has been read.

    It spends no time on cookies, which are never read: two scans of all headers for each response.
    """
    headers = _headers_of(raw)
    # Session.send scans the original response for cookies, if it finds it.
    raw._original_response = None
    response = WholeResponse.__new__(WholeResponse)
    response.__dict__.update(
        _content=content,
        _content_consumed=True,
        _next=None,
        status_code=raw.status,
        headers=headers,
        raw=raw,
        url=request.url,
        history=[],
        reason=raw.reason,
        cookies=_NO_COOKIES,
        elapsed=_NO_TIME,
        request=request,
        connection=adapter,
    )
    return response


def _headers_of(raw: HTTPResponse) -> CaseInsensitiveDict[str]:
    parsed = getattr(raw._original_response, "msg", None)
    return parsed.to_requests() if type(parsed) is ParsedHeaders else CaseInsensitiveDict(raw.headers)
