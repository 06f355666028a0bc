"""One exchange with the server: a request out, its response in.

:class:`Transport` sends over pooled connections and reads the response.  :class:`BrokenTransport` takes its place where
it could not be made again after a fork.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Dict, NoReturn, Optional, Union

import requests
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict

from .._redaction import secret
from .._values import FileFault, HTTPResponse, LazyBody
from .._wire import is_success
from ..config import Timeout
from ..errors import ConfigurationError
from ..types import ChatRequest
from .adapter import TransportAdapter
from .answer_file import AnswerFile
from .auth import KeyAuth
from .body import OpenStream, read_any
from .exchange import Cancelled, CancelToken, Exchange, Resolver
from .multipart import OpenedForm
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

__all__ = ["BrokenTransport", "Transport"]


# As many as browsers follow (https://fetch.spec.whatwg.org/#http-redirect-fetch).
_MAX_REDIRECTS = 20

_MAX_URLS = 64  # bounded, because paths may come from users' data

Headers = Mapping[str, Optional[str]]
Body = Union[bytes, LazyBody]


class Transport:
    """Sends requests over pooled connections, for any number of threads.

    Raises:
        ConfigurationError, TypeError: a setting cannot work; the message names it.
    """

    def __init__(self, settings: TransportSettings) -> None:
        self._base_url = normalise_base_url(settings.base_url)
        self._urls: Dict[str, str] = {}  # by their paths
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
        body: Body,
        *,
        timeout: Timeout,
        cancel: CancelToken,
        headers: Optional[Headers] = None,
        query: Optional[Mapping[str, str]] = None,
        answer_file: Optional[AnswerFile] = None,
    ) -> HTTPResponse:
        """Send ``request`` with the encoded ``body`` and read the response.

        Redirects to the same origin are followed: 307 and 308 as they are, 303 by a GET.

        Args:
            timeout: its ``connect``, ``read`` and ``attempt`` apply to the exchange with all its redirects.
            cancel: ends the exchange from another thread.
            headers: for this request, on top of the transport's; None as a value takes one away.
            query: URL parameters for this request, on top of the transport's.
            answer_file: takes the body of a response of status 2xx, whose ``content`` is its beginning then.

        Raises:
            Cancelled: ``cancel`` was cancelled, or the transport aborted or closed.
            requests.exceptions.RequestException: there is no complete response.
            FileFault: a file of the body cannot be read, or that of the answer not written.
        """
        tokens, max_bytes = (self._aborted, cancel), self._settings.max_response_bytes
        exchange = Exchange(timeout, tokens, self._resolver, max_bytes, answer_file=answer_file)
        reply = self._run(exchange, request, body, headers, query)
        assert isinstance(reply, HTTPResponse)
        return reply

    def open(
        self,
        request: ChatRequest,
        body: Body,
        *,
        timeout: Timeout,
        cancel: CancelToken,
        headers: Optional[Headers] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> Union[HTTPResponse, OpenStream]:
        """Send as :meth:`exchange` does, and leave the response open if it is a stream of events (of status 2xx).

        Its first bytes are waited for: they tell a stream of events, whatever the content type says.

        Args:
            timeout: its ``attempt`` goes on counting for reads without a deadline; ``read`` counts only for a response
                that is no stream of events, once it has begun.
            cancel: ends the exchange up to the end of the stream, from another thread.
            request, body, headers, query: as in :meth:`exchange`.

        Returns:
            The stream, which has to be read to its end or closed; otherwise the whole response.

        Raises:
            Cancelled, requests.exceptions.RequestException: as :meth:`exchange`.
        """
        own_token = CancelToken()
        tokens, max_bytes = (self._aborted, cancel, own_token), self._settings.max_response_bytes
        exchange = Exchange(timeout, tokens, self._resolver, max_bytes, wants_stream=True)
        response = self._run(exchange, request, body, headers, query)
        if isinstance(response, HTTPResponse):
            return response
        stream = OpenStream(response, exchange, own_token, max_bytes)
        try:
            content = stream.read_unless_events()
        except BaseException:
            stream.close()
            raise
        return stream if content is None else self._reply(response, content)

    def _run(
        self,
        exchange: Exchange,
        request: ChatRequest,
        body: Body,
        headers: Optional[Headers],
        query: Optional[Mapping[str, str]],
    ) -> Union[HTTPResponse, requests.Response]:
        if self._closed:
            raise Cancelled("the transport is closed")
        try:
            with exchange:
                url = self.url_of(request.path)
                if isinstance(body, bytes):
                    prepared = self._preparer.prepare(request.method, url, body, headers=headers, query=query)
                    return self._follow(prepared, exchange)
                with contextlib.ExitStack() as stack:
                    opened = _opened(body, stack)
                    prepared = self._preparer.prepare(
                        request.method, url, opened, headers=headers, query=query, content_type=body.content_type
                    )
                    return self._follow(prepared, exchange)
        except Exception as error:
            failure = exchange.failure(error)
            if failure is error:
                raise
        # Outside of the handler: the error that the time limit has caused would only distract.
        raise failure

    @property
    def settings(self) -> TransportSettings:
        """The settings that it was made with."""
        return self._settings

    @property
    def base_url(self) -> str:
        """URL of the API, without a trailing slash."""
        return self._base_url

    @property
    def proxy(self) -> str:
        """The URL of the proxy that requests go through, without user and password; "" for none."""
        return self._proxy

    @property
    def auth(self) -> KeyAuth:
        """The key, or what signs requests."""
        return self._preparer.auth

    def url_of(self, path: str) -> str:
        """Return the URL of a path below ``base_url``."""
        url = self._urls.get(path)
        if url is None:
            if len(self._urls) >= _MAX_URLS:
                self._urls.clear()
            url = self._urls[path] = join_url(self._base_url, path)
        return url

    def close(self) -> None:
        """Close the idle connections; exchanges under way finish, later ones raise Cancelled."""
        self._closed = True
        self._session.close()

    def abort(self) -> None:
        """End every exchange at once, then close."""
        self._aborted.cancel()
        self.close()

    def _follow(self, prepared: PreparedRequest, exchange: Exchange) -> Union[HTTPResponse, requests.Response]:
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(prepared, exchange)
            if exchange.wants_stream and is_success(response.status_code):
                exchange.stays_open = True
                return response
            content = read_any(response, self._settings.max_response_bytes)
            url = str(prepared.url)
            target = redirect_target(response.status_code, response.headers, url)
            if target is None:
                return self._reply(response, content, url)
            method = redirect_method(response.status_code, str(prepared.method))
            prepared = self._preparer.redirected(prepared, target, method)
        raise requests.exceptions.TooManyRedirects(f"more than {_MAX_REDIRECTS} redirects")

    def _reply(self, response: requests.Response, content: bytes, url: Optional[str] = None) -> HTTPResponse:
        if response.status_code != 200:
            content = self._settings.auth.scrub(self.auth.scrub(content))
        came_from = without_query(url or str(response.url))
        return HTTPResponse(response.status_code, response.headers, content, came_from, self._proxy)

    def _send(self, prepared: PreparedRequest, exchange: Exchange) -> requests.Response:
        try:
            return self._send_once(prepared, exchange)
        except requests.exceptions.ConnectionError:
            if exchange.cancelled or not exchange.undelivered:
                raise
        exchange.needs_fresh_connection = True
        return self._send_once(prepared, exchange)

    def _send_once(self, prepared: PreparedRequest, exchange: Exchange) -> requests.Response:
        body: Any = prepared.body
        if isinstance(body, OpenedForm):
            body.rewind()
        # These time limits are for mocks and for adapters of the user's; our sockets ask the exchange.
        left, timeout = exchange.left(), exchange.timeout
        read = left if timeout.read is None or exchange.wants_stream else min(left, timeout.read)
        response = self._session.send(
            prepared,
            timeout=(min(timeout.connect, left), read),
            proxies=self._proxies,
            verify=self._trust.verify,
            cert=self._trust.cert,
            allow_redirects=False,
            stream=True,
        )
        return _complete_mocked_response(response)

    def _choose_trust(self) -> Trust:
        settings, session = self._settings, self._settings.session
        verify, cert, trust_env = settings.verify, settings.cert, True
        if session is not None:
            trust_env = session.trust_env
            # requests' default, True, is no choice of the user.
            verify = session.verify if verify is None and session.verify is not True else verify
            cert = session.cert if cert is None else cert
        return choose_trust(verify, cert, trust_env=trust_env, https=self._base_url.startswith("https:"))


class BrokenTransport(Transport):
    """Raises the reason at every exchange; a pool without any transport would hang.

    Args:
        inherited: the parent process's transport, whose connections are not touched.
        reason: why it could not be made again.
    """

    def __init__(self, inherited: Transport, reason: Exception) -> None:
        self._base_url = inherited.base_url
        self._urls = {}
        self._settings = inherited.settings
        self._preparer = inherited._preparer
        self._proxy = inherited.proxy
        self._reason = reason

    def exchange(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise the reason.

        Raises:
            ConfigurationError: always, from the reason.
        """
        self._refuse()

    def open(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise the reason."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigurationError(
            f"the pool cannot be used in this forked process: {self._reason}; make a new ChatPool in it"
        ) from self._reason

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def abort(self) -> None:
        """Do nothing: there is nothing to end."""


def _opened(body: LazyBody, stack: contextlib.ExitStack) -> Any:
    try:
        return stack.enter_context(body.opened())
    except ConfigurationError as error:
        raise FileFault(error) from error


def _complete_mocked_response(response: Any) -> requests.Response:
    """Return a response of a user's mock as one that can be read like any other.

    A ``requests.Response`` with nothing but ``_content`` has no ``raw`` to be read from; a ``Mock`` has those of
    ``status_code``, ``headers``, and ``content``, ``text`` or ``json`` that a test has set.

    Raises:
        TypeError: it has no status code, or no content.
    """
    if isinstance(response, requests.Response) and (response.raw is not None or response._content_consumed):  # type: ignore[attr-defined]
        return response
    status, headers = getattr(response, "status_code", None), getattr(response, "headers", None)
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"a {type(response).__name__} took the place of a requests.Response and has no status_code")
    completed = requests.Response()
    completed.status_code = status
    completed.headers = CaseInsensitiveDict(headers if isinstance(headers, Mapping) else {})
    completed._content = _content_of(response)
    completed._content_consumed = True  # type: ignore[attr-defined]
    return completed


def _content_of(response: Any) -> bytes:
    if isinstance(response, requests.Response):
        return response._content if isinstance(response._content, bytes) else b""
    content, text = getattr(response, "content", None), getattr(response, "text", None)
    if isinstance(content, (bytes, bytearray)):
        return bytes(content)
    if isinstance(text, str):
        return text.encode()
    try:
        return json.dumps(response.json()).encode()
    except (AttributeError, TypeError, ValueError):
        pass
    raise TypeError(f"a {type(response).__name__} took the place of a requests.Response: give it content=b'...'")
