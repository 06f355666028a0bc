"""ChatPool: what users call."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Type

import requests

from ..config import Budget, Limits, RetryPolicyLike, TimeoutLike
from ..events import Listener
from ..redaction import secret
from ..reentrancy import defer, is_reentrant
from ..transport import Cert, Key, Verify
from ..types import PoolStats
from .bulk_calls import BulkCalls
from .connect import azure_settings, check_pacing, openai_settings
from .core import Core
from .credentials import refuse_credentials
from .endpoint import Endpoint
from .endpoints import Destination, destination, destinations
from .options import Defaults
from .pickling import Origin, restore
from .single_calls import SingleCalls
from .streaming import StreamingCalls

__all__ = ["ChatPool"]

_MAX_RESPONSE_BYTES = 64 * 1024 * 1024

_CONNECTION = (
    *("api_key", "base_url", "organization", "project", "headers", "query", "max_workers", "session"),
    *("verify", "cert", "proxies", "max_response_bytes"),
)


class ChatPool(SingleCalls, BulkCalls, StreamingCalls):
    """Calls to an OpenAI-compatible server, or to several, over pooled connections and at most ``max_workers`` threads.

    Args:
        model: the model of every request that names none.
        api_key: the key, or a callable that returns it (called again once when the server refuses the key).
            Default: OPENAI_API_KEY. Only OpenAI's own server needs one.
        base_url: the API's root, usually ending in ``/v1``. Default: OPENAI_BASE_URL, else OpenAI's.
        max_workers: the cap on calls in flight, and the number of connections kept. Default 16.
        timeout: a :class:`~chatpool.Timeout`, seconds for one attempt, or a (connect, read) pair.
        retry: a :class:`~chatpool.RetryPolicy`, or the number of retries.
        limits: :class:`~chatpool.Limits`, what may be sent per minute to each model. Default: the server's own
            limits, found out.
        budget: a :class:`~chatpool.Budget`, what may be spent in the pool's life. Default: no limit.
        endpoints: a list of :class:`~chatpool.Endpoint`, in place of ``api_key`` and ``base_url``: calls go to the one
            that is expected to answer first, and from one that fails to another.
        system: text of a system message put before conversations that have none.
        defaults: body fields of every request, for instance ``{"temperature": 0}``.
        headers: extra HTTP headers of every request.
        query: extra URL parameters of every request.
        organization: the ``OpenAI-Organization`` header. Default: OPENAI_ORG_ID.
        project: the ``OpenAI-Project`` header. Default: OPENAI_PROJECT_ID.
        session: a ``requests.Session`` whose headers, auth, proxies, certificates, hooks, cookies and own
            adapters are copied; the object itself is neither changed nor closed.
        after_call: called with no argument in the worker thread after each call, for instance Django's
            ``close_old_connections``.
        verify: False, the path of a CA bundle, or an ``ssl.SSLContext`` that settles everything about TLS (it gets
            chatpool's class of sockets). Default: REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE, else certifi's.
        cert: path of a client certificate, or a (certificate, key) pair.
        proxies: proxy URLs by scheme. Default: from the environment, as requests reads it; loopback needs none, and
            ``socks://`` is ``socks5h://``.
        max_response_bytes: the longest answer that is accepted, after decompression. Default 64 MiB.
        listeners: callables that get every :class:`~chatpool.Event`.

    A pool can be pickled: it is made anew from its arguments, with a key from a callable or the environment, never
    one passed as a str.  After a fork the child's copy has connections and workers of its own.

    Leaving a ``with`` block finishes what was submitted; leaving it by an exception gives everything up.
    Calls made from inside one of the pool's own workers (a listener, a callback) run there at once.

    Raises:
        ConfigurationError: a value that cannot work (it is a ValueError too); the message names the argument.
        TypeError: an argument of a wrong type, or an unknown one.
    """

    def __init__(
        self,
        model: Optional[str] = None,
        *,
        api_key: Key = None,
        base_url: Optional[str] = None,
        max_workers: int = 16,
        timeout: Optional[TimeoutLike] = None,
        retry: Optional[RetryPolicyLike] = None,
        limits: Optional[Limits] = None,
        budget: Optional[Budget] = None,
        endpoints: Optional[Sequence[Endpoint]] = None,
        system: Optional[str] = None,
        defaults: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
        query: Optional[Mapping[str, str]] = None,
        organization: Optional[str] = None,
        project: Optional[str] = None,
        session: Optional[requests.Session] = None,
        after_call: Optional[Callable[[], Any]] = None,
        verify: Verify = None,
        cert: Cert = None,
        proxies: Optional[Mapping[str, str]] = None,
        max_response_bytes: int = _MAX_RESPONSE_BYTES,
        listeners: Iterable[Listener] = (),
    ) -> None:
        # From here on whoever shows the variables of a frame shows none of them.
        api_key, headers, query, proxies = secret(api_key), secret(headers), secret(query), secret(proxies)
        given = {name: value for name, value in locals().items() if name != "self"}
        connection = {name: given[name] for name in _CONNECTION}
        fallbacks = {"model": model, "system": system, "defaults": defaults, "timeout": timeout, "retry": retry}
        check_pacing(limits, budget, model)
        if endpoints is None:
            goals = [destination(openai_settings(**connection), limits)]
        else:
            goals = destinations(endpoints, limits, connection)
        self._open(goals, fallbacks, after_call, listeners, budget)
        self._origin = Origin("", given)

    @classmethod
    def azure(
        cls,
        endpoint: Optional[str] = None,
        deployment: Optional[str] = None,
        *,
        api_key: Key = None,
        azure_ad_token_provider: Optional[Callable[[], str]] = None,
        api_version: Optional[str] = None,
        **options: Any,
    ) -> ChatPool:
        """A pool for an Azure OpenAI resource.

        Args:
            endpoint: ``https://NAME.openai.azure.com``. Default: AZURE_OPENAI_ENDPOINT.
            deployment: the deployment that all calls go to. Without one, each request's model names it.
            api_key: the resource's key, or a callable. Default: AZURE_OPENAI_API_KEY.
            azure_ad_token_provider: a function that returns a token of Microsoft Entra ID, to sign in without a
                key; called again once when the server refuses the token.
            api_version: for instance ``"2024-10-21"``. Default for a deployment: OPENAI_API_VERSION.
            options: further arguments of :class:`ChatPool`, ``model`` included.

        Raises:
            ConfigurationError: the endpoint or the key is missing, or the deployment has no API version.
        """
        api_key = secret(api_key)
        options.update({name: secret(options[name]) for name in ("headers", "query", "proxies") if name in options})
        given = {"endpoint": endpoint, "deployment": deployment, "api_key": api_key, "api_version": api_version}
        given.update(options, azure_ad_token_provider=azure_ad_token_provider)
        fallbacks = {name: options.pop(name, None) for name in ("system", "defaults", "timeout", "retry")}
        fallbacks["model"] = options.pop("model", deployment)
        after_call, listeners = options.pop("after_call", None), options.pop("listeners", ())
        limits, budget = options.pop("limits", None), options.pop("budget", None)
        allowed = {"headers", "query", "max_workers", "session", "verify", "cert", "proxies", "max_response_bytes"}
        for name in options:
            if name not in allowed:
                raise TypeError(f"ChatPool.azure() got an unexpected keyword argument {name!r}")
        fixed = {"max_workers": 16, "max_response_bytes": _MAX_RESPONSE_BYTES, "headers": None, "query": None}
        settings = azure_settings(
            endpoint, deployment, api_key, azure_ad_token_provider, api_version, **{**fixed, **options}
        )
        check_pacing(limits, budget, fallbacks["model"])
        pool = cls.__new__(cls)
        pool._open([destination(settings, limits)], fallbacks, after_call, listeners, budget)
        pool._origin = Origin("azure", given)
        return pool

    def _open(
        self,
        goals: Sequence[Destination],
        fallbacks: Mapping[str, Any],
        after_call: Optional[Callable[[], Any]],
        listeners: Iterable[Listener],
        budget: Optional[Budget],
    ) -> None:
        self._defaults = Defaults().changed(**{name: value for name, value in fallbacks.items() if value is not None})
        self._core = Core(goals, after_call, listeners, budget)
        self._is_view = False

    def with_options(self, **options: Any) -> ChatPool:
        """A view of this pool with other defaults: same connections, same workers, same limits.

        Args:
            options: any of ``model``, ``system``, ``defaults``, ``headers``, ``query``, ``priority``, ``timeout``,
                ``retry``.

        Returns:
            A ChatPool. Closing it does nothing; the pool it was made from is closed by its owner.
        """
        view = ChatPool.__new__(ChatPool)
        view._core, view._origin, view._is_view = self._core, self._origin, True
        view._defaults = self._defaults.changed(**options)
        return view

    def stats(self) -> PoolStats:
        """The pool's counters at this moment; in a finalizer or a signal handler its lines may be as last asked for."""
        return self._core.stats(reentrant=is_reentrant())

    def close(self) -> None:
        """Finish what was submitted, then release threads and connections.  Further calls do nothing."""
        if not self._is_view:
            self._end(self._core.engine.close, reentrant=is_reentrant())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End as ``concurrent.futures.Executor.shutdown`` does.

        Args:
            wait: False returns at once, while what was submitted goes on.
            cancel_futures: whether calls that are queued or wait for their next attempt are cancelled.
        """
        if not self._is_view:
            end = partial(self._core.engine.shutdown, wait=wait, cancel_futures=cancel_futures)
            self._end(end, reentrant=is_reentrant())

    def abort(self) -> None:
        """Give up every call of the pool at once and close it; the calls end with PoolClosedError."""
        self._end(self._core.engine.abort, reentrant=is_reentrant())

    def _end(self, end: Callable[[], None], *, reentrant: bool) -> None:
        """End now, or as soon as another thread can: nothing is waited for in a finalizer or a signal handler."""
        self._core.engine.accept_no_more()
        if reentrant:
            defer(end)
        else:
            end()

    def __enter__(self) -> ChatPool:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if self._is_view:
            return
        engine = self._core.engine
        self._end(engine.close if kind is None else engine.abort, reentrant=is_reentrant())

    def __reduce__(self) -> Any:
        # A pool is pickled as its configuration; a key that was passed as a str stays behind.
        refuse_credentials("headers=", self._defaults.headers)
        return restore, (self._origin.without_key(), self._defaults)

    def __repr__(self) -> str:
        if not hasattr(self, "_core"):
            return "<ChatPool that was not made>"
        queued, parked, in_flight = self._core.engine.counts()
        state = "closed" if self._core.engine.closed else f"queued={queued} parked={parked} in_flight={in_flight}"
        plans = self._core.engine.routes.plans
        several = f"endpoints={[plan.name for plan in plans]}"
        where = f"base_url={self._core.transport.base_url!r}" if len(plans) == 1 else several
        return f"<ChatPool model={self._defaults.model!r} {where} max_workers={self._core.engine.max_workers} {state}>"
