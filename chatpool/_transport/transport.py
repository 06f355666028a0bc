"""One exchange: a request out, its answer in.

Responses that no server has sent: tests make them by hand, or put a mock in their place.

What stands in for a transport that could not be made again after a fork.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, NoReturn, Optional, Union

import requests
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict

from .._redaction import secret
from .._values import HTTPResponse
from ..config import Timeout
from ..errors import ConfigurationError
from ..types import ChatRequest
from .adapter import TransportAdapter
from .auth import KeyAuth
from .body import OpenStream, read_any
from .exchange import Cancelled, CancelToken, Exchange, Resolver
from .session import Preparer, make_session
from .settings import TransportSettings
from .tls import Trust, choose_trust
from .urls import (
    choose_proxies,
    join_url,
    normalise_base_url,
    redirect_method,
    redirect_target,
    shown_proxy,
    without_query,
)

__all__ = ["BrokenTransport", "Transport", "as_response"]


def as_response(given: Any) -> requests.Response:
    """``given`` as a response that can be read like any other.

    A ``requests.Response`` with nothing but ``_content`` has no ``raw`` to be read from; a ``Mock`` has what it was
    given of ``status_code``, ``headers``, and ``content``, ``text`` or ``json``.

    Raises:
        TypeError: it has no status code, or nothing that could be its content.
    """
    if isinstance(given, requests.Response) and (given.raw is not None or given._content_consumed):  # type: ignore[attr-defined]
        return given
    status, headers = getattr(given, "status_code", None), getattr(given, "headers", None)
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"a {type(given).__name__} took the place of a requests.Response and has no status_code")
    made = requests.Response()
    made.status_code = status
    made.headers = CaseInsensitiveDict(headers if isinstance(headers, Mapping) else {})
    made._content = _content_of(given)
    made._content_consumed = True  # type: ignore[attr-defined]
    return made


def _content_of(given: Any) -> bytes:
    if isinstance(given, requests.Response):
        return given._content if isinstance(given._content, bytes) else b""
    content, text = getattr(given, "content", None), getattr(given, "text", None)
    if isinstance(content, (bytes, bytearray)):
        return bytes(content)
    if isinstance(text, str):
        return text.encode()
    try:
        return json.dumps(given.json()).encode()
    except (AttributeError, TypeError, ValueError):
        pass
    raise TypeError(f"a {type(given).__name__} took the place of a requests.Response: give it content=b'...'")


# As many as browsers follow (https://fetch.spec.whatwg.org/#http-redirect-fetch).
MAX_REDIRECTS = 20

Headers = Mapping[str, Optional[str]]


class Transport:
    """Sends requests over pooled connections.  For any number of threads.

    Raises:
        ConfigurationError, TypeError: a setting cannot work; the message names it.
    """

    def __init__(self, settings: TransportSettings) -> None:
        self._base_url = normalise_base_url(settings.base_url)
        self._settings = settings
        self._trust = self._choose_trust()
        adapter = TransportAdapter(settings.max_workers, self._trust, settings.max_response_bytes)
        self._session = make_session(adapter, self._base_url, settings.session)
        self._preparer = Preparer(self._session, settings)
        explicit = {**self._session.proxies, **(settings.proxies or {})}
        self._proxies = secret(choose_proxies(self._base_url, explicit, trust_env=self._session.trust_env))
        self._proxy = shown_proxy(self._proxies)
        self._resolver = Resolver()
        self._aborted = CancelToken()
        self._closed = False

    def exchange(
        self,
        request: ChatRequest,
        body: bytes,
        *,
        timeout: Timeout,
        cancel: CancelToken,
        headers: Optional[Headers] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> HTTPResponse:
        """Send ``request`` with the encoded ``body`` and read the answer.

        Redirects to the same origin are followed: 307 and 308 as they are, 303 by a GET.

        Args:
            timeout: its ``connect``, ``read`` and ``attempt`` hold for the exchange with all its redirects.
            cancel: ends the exchange from another thread.
            headers: for this request, on top of the transport's; None as a value takes one away.
            query: URL parameters for this request, on top of the transport's.

        Raises:
            Cancelled: ``cancel`` was cancelled, or the transport aborted or closed.
            requests.exceptions.RequestException: there is no whole answer.
        """
        exchange = Exchange(timeout, (self._aborted, cancel), self._resolver, self._settings.max_response_bytes)
        reply = self._run(exchange, request, body, headers, query)
        assert isinstance(reply, HTTPResponse)
        return reply

    def open(
        self,
        request: ChatRequest,
        body: bytes,
        *,
        timeout: Timeout,
        cancel: CancelToken,
        headers: Optional[Headers] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> Union[HTTPResponse, OpenStream]:
        """Send as :meth:`exchange` does, and leave the answer open if it is a stream of events (of status 2xx).

        What it is, its first bytes tell, whatever its content type says; so they are waited for.

        Args:
            timeout: its ``attempt`` goes on counting for the reads that name no limit of their own; ``read`` counts
                only for an answer that is none of events, once it has begun.
            cancel: ends the exchange up to the end of the stream, from another thread.
            request, body, headers, query: as in :meth:`exchange`.

        Returns:
            The stream, which has to be read to its end or closed; otherwise the whole answer.

        Raises:
            Cancelled, requests.exceptions.RequestException: as :meth:`exchange`.
        """
        ending = CancelToken()
        tokens, most = (self._aborted, cancel, ending), self._settings.max_response_bytes
        exchange = Exchange(timeout, tokens, self._resolver, most, wants_stream=True)
        response = self._run(exchange, request, body, headers, query)
        if isinstance(response, HTTPResponse):
            return response
        stream = OpenStream(response, exchange, ending, most)
        try:
            content = stream.whole()
        except BaseException:
            stream.close()
            raise
        return stream if content is None else self._reply(response, content)

    def _run(
        self,
        exchange: Exchange,
        request: ChatRequest,
        body: bytes,
        headers: Optional[Headers],
        query: Optional[Mapping[str, str]],
    ) -> Union[HTTPResponse, requests.Response]:
        if self._closed:
            raise Cancelled("the transport is closed")
        try:
            with exchange.running():
                url = self.url_of(request.path)
                prepared = self._preparer.prepare(request.method, url, body, headers=headers, query=query)
                return self._follow(prepared, exchange)
        except Exception as error:
            failure = exchange.failure(error)
            if failure is error:
                raise
        # Outside of the handler: the time limit is the whole story, what broke because of it is not.
        raise failure

    @property
    def settings(self) -> TransportSettings:
        """What it was made of."""
        return self._settings

    @property
    def base_url(self) -> str:
        """Where the API lives, without a trailing slash."""
        return self._base_url

    @property
    def proxy(self) -> str:
        """The URL of the proxy that requests go through, without user and password; "" for none."""
        return self._proxy

    @property
    def auth(self) -> KeyAuth:
        """The key."""
        return self._settings.auth

    def url_of(self, path: str) -> str:
        """The URL of a path below ``base_url``."""
        return join_url(self._base_url, path)

    def close(self) -> None:
        """Close the idle connections; exchanges under way finish, later ones raise Cancelled."""
        self._closed = True
        self._session.close()

    def abort(self) -> None:
        """End every exchange at once, then close."""
        self._aborted.cancel()
        self.close()

    def _follow(self, prepared: PreparedRequest, exchange: Exchange) -> Union[HTTPResponse, requests.Response]:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(prepared, exchange)
            if exchange.wants_stream and 200 <= response.status_code < 300:
                exchange.goes_on = True
                return response
            content = read_any(response, self._settings.max_response_bytes)
            url = str(prepared.url)
            target = redirect_target(response.status_code, response.headers, url)
            if target is None:
                return self._reply(response, content, url)
            method = redirect_method(response.status_code, str(prepared.method))
            prepared = self._preparer.redirected(prepared, target, method)
        raise requests.exceptions.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects")

    def _reply(self, response: requests.Response, content: bytes, url: Optional[str] = None) -> HTTPResponse:
        if response.status_code != 200:
            content = self._settings.auth.scrub(content)
        came_from = without_query(url or str(response.url))
        return HTTPResponse(response.status_code, response.headers, content, came_from, self._proxy)

    def _send(self, prepared: PreparedRequest, exchange: Exchange) -> requests.Response:
        try:
            return self._send_once(prepared, exchange)
        except requests.exceptions.ConnectionError:
            if exchange.cancelled or not exchange.undelivered:
                raise
        exchange.fresh_only = True
        return self._send_once(prepared, exchange)

    def _send_once(self, prepared: PreparedRequest, exchange: Exchange) -> requests.Response:
        # The time limits are for mocks and for adapters of the user's; our own sockets ask the exchange.
        left = exchange.left()
        timeout = exchange.timeout
        response = self._session.send(
            prepared,
            timeout=(min(timeout.connect, left), exchange.left_to_read()),
            proxies=self._proxies,
            verify=self._trust.verify,
            cert=self._trust.cert,
            allow_redirects=False,
            stream=True,
        )
        return as_response(response)

    def _choose_trust(self) -> Trust:
        settings, model = self._settings, self._settings.session
        verify, cert, trust_env = settings.verify, settings.cert, True
        if model is not None:
            trust_env = model.trust_env
            # requests' default, True, is no choice of the user's.
            verify = model.verify if verify is None and model.verify is not True else verify
            cert = model.cert if cert is None else cert
        return choose_trust(verify, cert, trust_env=trust_env, https=self._base_url.startswith("https:"))


class BrokenTransport(Transport):
    """Answers every exchange with the reason; a pool without any transport would hang.

    Args:
        inherited: the parent process's transport, whose connections are not touched.
        reason: why it could not be made again.
    """

    def __init__(self, inherited: Transport, reason: Exception) -> None:
        self._base_url = inherited.base_url
        self._settings = inherited.settings
        self._proxy = inherited.proxy
        self._reason = reason

    def exchange(
        self,
        request: ChatRequest,
        body: bytes,
        *,
        timeout: Timeout,
        cancel: CancelToken,
        headers: Optional[Mapping[str, Optional[str]]] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> HTTPResponse:
        """Never one.

        Raises:
            ConfigurationError: always, from the reason.
        """
        self._refuse()

    def open(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Never one either."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigurationError(
            f"the pool cannot be used in this forked process: {self._reason}; make a new ChatPool in it"
        ) from self._reason

    def close(self) -> None:
        """There is nothing to close."""

    def abort(self) -> None:
        """There is nothing to end."""
